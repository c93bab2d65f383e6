//! The program `hactl`; everything is in the library.

fn main() -> std::process::ExitCode {
    hactl::main()
}
