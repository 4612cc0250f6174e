// Reports of checks: one JSON object a line, read by run.py.

export function report(check, why) {
  console.log(JSON.stringify({ check, why: why ?? null }));
}

// Runs a check; an exception is a failure.
export async function check(name, work) {
  try {
    report(name, await work());
  } catch (error) {
    report(name, String(error.cause ?? error).slice(0, 300));
  }
}

export function expect(condition, why) {
  if (!condition) throw new Error(why);
}
