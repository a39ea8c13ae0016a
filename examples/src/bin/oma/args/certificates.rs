//! Who may trust whom.

use std::path::PathBuf;

use clap::Args;

const CERTIFICATE_HELP: &str = "\
Example, on the appliance's machine, for an agent on host-7:
    oma --data-dir /var/lib/oma certificate host-7 /root/host-7
    scp -r /root/host-7 root@host-7:/etc/oma/tls

DIR has ca-cert.pem, client-cert.pem and client-key.pem then, as `tls-certificates=DIR` of an NBD URI and `agent --certificates DIR` want
them, good for 397 days. Whoever has them may connect to NBD of the appliance as cn:NAME (docs/tls.md).";

#[derive(Debug, Args)]
#[command(after_help = CERTIFICATE_HELP)]
pub(crate) struct CertificateArgs {
    /// Whom it is for: the common name of the certificate
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Where the files are put; made when it is not there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
