//! Who may trust whom.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use oma_examples::authority::Fingerprint;

const CERTIFICATE_HELP: &str = "\
Example, on the appliance's machine, for an agent on host-7:
    oma --data-dir /var/lib/oma certificate make host-7 /root/host-7
    scp -r /root/host-7 root@host-7:/etc/oma/tls

DIR has ca-cert.pem, client-cert.pem and client-key.pem then, as `tls-certificates=DIR` of an NBD URI and `agent --certificates DIR` want
them, good for 397 days. Whoever has them may connect to NBD of the appliance as cn:NAME (docs/tls.md). When they are lost or stolen:
    oma --data-dir /var/lib/oma certificate revoke host-7";

#[derive(Debug, Args)]
#[command(after_help = CERTIFICATE_HELP)]
pub(crate) struct CertificateArgs {
    /// The daemon's database, for the audit trail, in place of OMA_DATABASE and of the one in the data directory
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    #[command(subcommand)]
    pub(crate) command: CertificateCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Make a certificate for a client
    Make(MakeCertificateArgs),
    /// List the certificates that were made, the last ones first
    List,
    /// Shut a client out: its certificates are refused from then on
    Revoke(RevokeCertificateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RevokeCertificateArgs {
    /// Whose: the common name, or the serial number of a single one as `oma certificate list` tells it
    #[arg(value_name = "NAME|SERIAL")]
    pub(crate) client: String,
}

#[derive(Debug, Args)]
pub(crate) struct MakeCertificateArgs {
    /// Whom it is for: the common name of the certificate
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Where the files are put; made when it is not there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

const TRUST_HELP: &str = "\
Example:
    oma trust --api https://oma.example:8082 --fingerprint SHA256:5B:9A:…

The appliance's log has the fingerprint from each of its starts; on its machine it is told by
    openssl x509 -in /var/lib/oma/tls/ca-cert.pem -noout -fingerprint -sha256
Without --fingerprint it is shown, and trusted once `yes` is typed. After that `oma --api` and `agent` need no --ca for the appliance.";

#[derive(Debug, Args)]
#[command(after_help = TRUST_HELP)]
pub(crate) struct TrustArgs {
    /// The fingerprint of the authority that is to be trusted; any other is refused
    #[arg(long, value_name = "SHA256:…")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Write the authority to a file for --ca, in place of that of the appliance in the directory of the user's settings
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
