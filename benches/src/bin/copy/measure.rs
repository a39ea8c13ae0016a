//! Time, processor time and memory of one run.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use oma_benches::Times;

/// How often a program is asked for the most memory it had.
const TICK: Duration = Duration::from_millis(2);

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// Processor seconds of the program, in user and in kernel mode.
    pub(crate) cpu: f64,
    /// MiB of memory at most, as last seen before its end.
    pub(crate) memory: f64,
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> io::Result<Sample> {
    let before = Times::of("self")?.children;
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let watch = thread::spawn(move || {
        let mut most = 0.0_f64;
        // A program that ended has no such line.
        while let Some(now) = fs::read_to_string(&status).ok().and_then(|text| high_water(&text)) {
            most = most.max(now);
            thread::park_timeout(TICK);
        }
        most
    });
    let ended = child.wait()?;
    let seconds = begun.elapsed().as_secs_f64();
    let memory = watch.join().map_err(|_| io::Error::other("the watch over the memory failed"))?;
    if !ended.success() {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            io::Read::read_to_string(&mut stderr, &mut said)?;
        }
        return Err(io::Error::other(format!("{command:?} failed ({ended}): {}", said.trim())));
    }
    Ok(Sample { seconds, cpu: Times::of("self")?.children - before, memory })
}

/// `VmHWM` of proc(5), in MiB.
fn high_water(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u32 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(f64::from(kib) / 1024.0)
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
    fn processor_time_and_memory_of_a_program_are_seen() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let sample = run(Command::new("sh").args(["-c", busy])).unwrap();
        assert!(sample.cpu > 0.0 && sample.memory > 0.1, "{sample:?}");
    }
}
