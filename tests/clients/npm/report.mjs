// Reports each check as one line of JSON, which run.py reads.

export function report(check, why) {
  console.log(JSON.stringify({ check, why: why ?? null }));
}

// Runs a check. An exception is a failure.
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
