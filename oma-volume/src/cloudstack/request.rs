use super::signature::Parameters;

/// A command and its parameters, before it is signed.
#[derive(Clone, Debug)]
pub(super) struct Request {
    command: &'static str,
    parameters: Parameters,
    on_proof: bool,
}

impl Request {
    pub(super) fn new(command: &'static str) -> Self {
        Self { command, parameters: Vec::new(), on_proof: false }
    }

    /// A change of a volume, whoever has it: good only as long as what was just proven of that volume holds. It is neither put off nor
    /// sent again by itself.
    pub(super) fn on_proof(command: &'static str, volume: &str) -> Self {
        Self { on_proof: true, ..Self::new(command).with("id", volume) }
    }

    /// A list of all that the account may see.
    pub(super) fn list_all(command: &'static str) -> Self {
        Self::new(command).with("listall", "true")
    }

    pub(super) fn with(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.parameters.push((name.to_owned(), value.to_string()));
        self
    }

    /// Tags to set, to take away or to look for.
    pub(super) fn with_tags<'a>(mut self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (index, (key, value)) in tags.into_iter().enumerate() {
            self.parameters.push((format!("tags[{index}].key"), key.to_owned()));
            self.parameters.push((format!("tags[{index}].value"), value.to_owned()));
        }
        self
    }

    pub(super) fn command(&self) -> &'static str {
        self.command
    }

    /// Whether it has to be proven anew before it is sent again.
    pub(super) fn is_on_proof(&self) -> bool {
        self.on_proof
    }

    /// Whether it only asks: sent again, it changes nothing. The rule is the server's own.
    pub(super) fn only_asks(&self) -> bool {
        ["get", "list", "query", "find"].iter().any(|verb| self.command.starts_with(verb))
    }

    pub(super) fn parameters(&self) -> Parameters {
        let mut all = vec![("command".to_owned(), self.command.to_owned())];
        all.extend(self.parameters.iter().cloned());
        all
    }
}
