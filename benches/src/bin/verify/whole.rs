//! A whole disk and its volume: `oma verify` against `b3sum` of both files.

use std::io;
use std::process::Command;

use oma_examples::SampleDisk;

use crate::measure::run;
use crate::{Bench, Runs, volume};

pub(crate) fn measure(bench: &Bench<'_>) -> io::Result<Runs> {
    let (image, data) = (bench.path("whole.raw"), bench.path("whole"));
    SampleDisk::make(&image, bench.cli.size, 1)?;
    let oma = |command: &str| {
        let mut oma = Command::new(&bench.oma);
        oma.arg("--data-dir")
            .arg(&data)
            .args([command, "--vm-path", "/bench/vm/whole", "--source"])
            .arg(&image);
        oma
    };
    run(&mut oma("replicate"))?;
    let volume = volume(&data)?;
    let mut runs: Runs = vec![("oma verify", Vec::new()), ("b3sum of both", Vec::new())];
    for _ in 0..bench.cli.rounds {
        runs[0].1.push(run(&mut oma("verify"))?);
        runs[1].1.push(run(Command::new(&bench.cli.b3sum).args([&image, &volume]))?);
    }
    std::fs::remove_file(image)?;
    std::fs::remove_dir_all(data)?;
    Ok(runs)
}
