//! Time and processor time of one run.

use std::fs;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICKS: f64 = 100.0;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) elapsed: Duration,
    /// Processor seconds of the program, in user and in kernel mode.
    pub(crate) cpu: f64,
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> io::Result<Sample> {
    let before = children()?;
    let begun = Instant::now();
    let output = command.output()?;
    let elapsed = begun.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{command:?} failed ({}): {}", output.status, said.trim())));
    }
    Ok(Sample { elapsed, cpu: children()? - before })
}

/// Processor seconds of all children that have ended: `cutime` and `cstime` of proc_pid_stat(5).
fn children() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The program's name may hold blanks and parentheses; what follows the last one is regular.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u32>);
    let sum: u32 = ticks.sum::<Result<_, _>>().map_err(io::Error::other)?;
    Ok(f64::from(sum) / TICKS)
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
