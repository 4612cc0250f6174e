fn main() {
    let t = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    match calgate::catalog::import::import(&t) {
        Ok(c) => print!("{}", calgate::catalog::file::write(&c)),
        Err(e) => {
            for e in e {
                eprintln!("{e}")
            }
        }
    }
}
