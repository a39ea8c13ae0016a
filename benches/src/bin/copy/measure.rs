//! Time and processor time of one run.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use oma_benches::Times;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) elapsed: Duration,
    /// Processor seconds of the program, in user and in kernel mode.
    pub(crate) cpu: f64,
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> io::Result<Sample> {
    let before = Times::of("self")?.children;
    let begun = Instant::now();
    let output = command.output()?;
    let elapsed = begun.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{command:?} failed ({}): {}", output.status, said.trim())));
    }
    Ok(Sample { elapsed, cpu: Times::of("self")?.children - before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_no_sample() {
        let error = run(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("false"), "{error}");
    }

    #[test]
    fn processor_time_of_children_is_counted() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let sample = run(Command::new("sh").args(["-c", busy])).unwrap();
        assert!(sample.cpu > 0.0, "{sample:?}");
    }
}
