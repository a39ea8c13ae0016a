//! The promises of the store traits, on SQLite.
fn main() -> std::process::ExitCode {
    oma_core::conformance::run(Vec::new())
}
