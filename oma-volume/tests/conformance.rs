//! Conformance.
fn main() -> std::process::ExitCode {
    oma_core::conformance::run(Vec::new())
}
