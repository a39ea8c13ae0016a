//! The machine: a kernel, busybox, three disks, and a script that writes them or checks them.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::initramfs::{Initramfs, Kernel};
use crate::world::{LIMIT, World};

/// A boot without acceleration on a busy host takes this long at most.
const BOOT: Duration = Duration::from_secs(80);

const MODULES: &[&str] =
    &["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"];

/// Name and serial, file, format.
pub(crate) type Disk<'a> = (&'a str, &'a str, &'a str);

/// A file system and two disks that are written in lock step.
pub(crate) const LIVE: [Disk<'static>; 3] =
    [("fs", "fs", "qcow2"), ("one", "one", "raw"), ("two", "two", "qcow2")];

/// Every step writes a block of both disks, then the number of the step to the begin of one and then of the other, then a line to a
/// journal in the file system; each is on its disk before the next begins.
const SCRIPT: &str = r#"
disk() { for b in /sys/block/vd*; do if [ "$(cat $b/serial)" = "$1" ]; then echo /dev/${b##*/}; fi; done; }
fs=$(disk fs) one=$(disk one) two=$(disk two)
[ "$fs" ] && [ "$one" ] && [ "$two" ] || { echo "a disk is missing"; poweroff -f; }
mkdir -p /mnt
block() { yes "$1 $2" | head -c 4096 | dd of=$4 bs=4096 seek=$3 iflag=fullblock conv=notrunc,fsync status=none; }
count() { printf '%08d' $1 | dd of=$2 bs=512 conv=sync,notrunc,fsync status=none; }
work() {
    i=0
    while [ ! -e /stop ]; do
        i=$((i + 1))
        p=$((16 + 16 * (i * 37 % 500) + i % 16))
        block one $i $p $one
        block two $i $p $two
        count $i $one
        count $i $two
        echo $i | dd of=/mnt/journal oflag=append conv=notrunc,fsync status=none
        head -c 20000 /dev/urandom > /mnt/file$((i % 7))
        echo "step $i"
    done
}
case "$(cat /proc/cmdline)" in
*oma=write*)
    mount -t ext4 $fs /mnt
    work &
    read line
    touch /stop
    wait
    cat $one | md5sum > /mnt/one
    cat $two | md5sum > /mnt/two
    cd /mnt && md5sum file* journal one two > sums && cd / && umount /mnt && sync && echo "case written ok"
    ;;
*oma=check*)
    e2fsck -f -n $fs && echo "case fsck ok"
    mount -t ext4 -o ro $fs /mnt
    cd /mnt && md5sum -c sums && echo "case files ok"
    cat $one | md5sum | cmp - one && cat $two | md5sum | cmp - two && echo "case devices ok"
    ;;
esac
sleep 1
poweroff -f
"#;

pub(crate) async fn make_disks(world: &World) {
    world.must("qemu-img", &["create", "-q", "-f", "raw", "plain", "64M"]).await;
    world.must("mke2fs", &["-q", "-t", "ext4", "plain"]).await;
    world.must("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "plain", "fs"]).await;
    world.must("qemu-img", &["create", "-q", "-f", "raw", "one", "32M"]).await;
    world.must("qemu-img", &["create", "-q", "-f", "qcow2", "two", "32M"]).await;
}

/// A machine that runs; it ends with the value.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    input: ChildStdin,
    console: watch::Receiver<Vec<String>>,
    _reading: JoinHandle<()>,
}

impl Machine {
    pub(crate) fn boot(world: &World, task: &str, disks: &[Disk<'_>; 3], writable: bool) -> Self {
        let kernel = Kernel::find().unwrap();
        let image = Initramfs::new(&world.path(task));
        image.bring("e2fsck");
        let image = image.pack(&kernel, MODULES, SCRIPT);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "256", "-nodefaults"]);
        qemu.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
        // On a busy host an emulated timer is late, and the kernel would take it for one that is broken.
        let line = format!("console=ttyS0 quiet no_timer_check panic=-1 rdinit=/init oma={task}");
        qemu.arg("-append").arg(line);
        qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
        for (name, file, format) in disks {
            let access = if writable { "off" } else { "on" };
            let blockdev = format!(
                "{format},node-name=n-{name},read-only={access},file.driver=file,file.filename={file}"
            );
            qemu.arg("-blockdev").arg(blockdev + &format!(",file.read-only={access}"));
            let device = format!("virtio-blk-pci,drive=n-{name},id={name},serial={name},iothread=io-{name}");
            qemu.arg("-object").arg(format!("iothread,id=io-{name}")).arg("-device").arg(device);
        }
        if writable {
            // Powered off, it is still there for its last epoch.
            qemu.args(["-no-shutdown", "-qmp", "unix:qmp,server=on,wait=off"]);
        }
        qemu.current_dir(world.path("")).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = qemu.spawn().unwrap();
        let (input, output) = (qemu.stdin.take().unwrap(), qemu.stdout.take().unwrap());
        let (tell, console) = watch::channel(Vec::new());
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tell.send_modify(|console| console.push(line));
            }
        });
        Self { qemu, input, console, _reading: reading }
    }

    /// How many steps the guest has told of.
    pub(crate) fn steps(&self) -> u64 {
        steps(&self.console.borrow())
    }

    pub(crate) async fn waits_for(&mut self, number: u64) {
        self.waits(|console| steps(console) >= number).await;
    }

    pub(crate) async fn waits_for_line(&mut self, line: &str) {
        self.waits(|console| console.iter().any(|other| other.contains(line))).await;
    }

    async fn waits(&mut self, mut until: impl FnMut(&Vec<String>) -> bool) {
        let waited = timeout(BOOT, self.console.wait_for(|console| until(console))).await;
        let well = matches!(waited, Ok(Ok(_)));
        drop(waited);
        assert!(well, "{:#?}", *self.console.borrow());
    }

    /// Lets the guest end its work and switch itself off. QEMU stays.
    pub(crate) async fn power_off(&mut self) {
        self.input.write_all(b"stop\n").await.unwrap();
        self.waits_for_line("case written ok").await;
    }

    /// Ends QEMU, in good order: what it holds of its images is written.
    pub(crate) async fn end(mut self) {
        crate::world::signal(&self.qemu, "TERM").await;
        timeout(LIMIT, self.qemu.wait()).await.unwrap().unwrap();
    }
}

fn steps(console: &[String]) -> u64 {
    let number = |line: &String| line.trim().strip_prefix("step ")?.parse().ok();
    console.iter().rev().find_map(number).unwrap_or(0)
}
