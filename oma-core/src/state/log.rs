use super::labelled;

labelled! {
    /// How much a log event matters, least first.
    LogLevel, "log level" {
        /// For whoever looks for a cause.
        Debug = "DEBUG",
        /// What happened.
        Info = "INFO",
        /// Something that mended itself, or that somebody should look at.
        Warn = "WARN",
        /// Something did not work.
        Error = "ERROR",
    }
}

labelled! {
    /// How a step of a job stands.
    StepStatus, "step status" {
        /// It has begun, and nobody said how it ended.
        Running = "running",
        /// It did what it was for.
        Completed = "completed",
        /// It did not, or was not let.
        Failed = "failed",
        /// There was nothing to do for it.
        Skipped = "skipped",
    }
}

labelled! {
    /// Which output of an automation job a line came from.
    LineStream, "output stream" {
        /// What it says.
        Stdout = "stdout",
        /// What it complains about.
        Stderr = "stderr",
    }
}
