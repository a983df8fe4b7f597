//! A plain WASI program that knows nothing of windlass: what it prints is its log, and its exit code is how it ended.

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => println!("hello from a plain WASI program"),
        Some("--fail") => {
            eprintln!("asked to fail");
            std::process::exit(3);
        }
        Some(other) => println!("hello, {other}"),
    }
}
