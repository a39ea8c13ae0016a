use super::labelled;

labelled! {
    /// What somebody may do, from the least. Each but the first may do all that those before it may.
    Role, "role" {
        /// Works on its own jobs, and sees nothing else.
        Agent = "agent",
        /// Looks.
        Viewer = "viewer",
        /// Changes volumes and jobs.
        Operator = "operator",
        /// Also what nobody can undo for whoever operates, and accounts.
        Admin = "admin",
    }
}

labelled! {
    /// What a token was made for.
    TokenKind, "kind of token" {
        /// For programs, until it expires or is revoked.
        Api = "api",
        /// Of a login, until the logout or for a short while.
        Session = "session",
    }
}
