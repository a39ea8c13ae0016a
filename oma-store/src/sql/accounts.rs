//! `users`, `access_tokens`, `token_jobs` and `login_attempts`.

use super::statements;

macro_rules! user {
    () => {
        "SELECT id, email, password_hash, full_name, role, is_active, last_login_at, created_at, updated_at FROM users"
    };
}

macro_rules! token {
    () => {
        "SELECT id, user_id, kind, name, role, ip_address, created_at, expires_at, last_used_at, revoked_at FROM access_tokens"
    };
}

statements! {
    USER = concat!(user!(), " WHERE id = ?");
    USER_BY_EMAIL = concat!(user!(), " WHERE email = ?");
    USERS = concat!(user!(), " WHERE id > ? ORDER BY id LIMIT ?");
    /// Any user.
    ANY_USER = concat!(user!(), " WHERE id > ? ORDER BY id LIMIT 1");
    /// Active admins beside one, whoever they are. Users are few.
    OTHER_ADMIN = "SELECT id FROM users WHERE id > 0 AND id <> ? AND role = 'admin' AND is_active = 1 ORDER BY id LIMIT 1";
    ADD_USER = "INSERT INTO users (email, password_hash, full_name, role, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)";
    CHANGE_USER = "UPDATE users SET password_hash = ?, full_name = ?, role = ?, is_active = ?, updated_at = ? WHERE id = ?";
    /// Nothing but the time, once the password is still the same: locks the row.
    LOGGED_IN = "UPDATE users SET last_login_at = ? WHERE id = ? AND password_hash = ? AND is_active = 1";
    /// Locks a user who is to have a token.
    LOCK_USER = "UPDATE users SET is_active = is_active WHERE id = ?";
    REMOVE_USER = "DELETE FROM users WHERE id = ?";
    RUN_OF_USER = "SELECT id FROM jobs WHERE user_id = ? LIMIT 1";
    TICKET_OF_USER = "SELECT id FROM tickets WHERE user_id = ? LIMIT 1";

    TOKEN = concat!(token!(), " WHERE id = ?");
    TOKEN_BY_HASH = concat!(token!(), " WHERE token_hash = ?");
    TOKENS = concat!(token!(), " WHERE id > ? ORDER BY id LIMIT ?");
    TOKENS_OF_USER = concat!(token!(), " WHERE user_id = ? AND id > ? ORDER BY id LIMIT ?");
    MINT = "INSERT INTO access_tokens (id, user_id, kind, name, role, token_hash, ip_address, created_at, expires_at) \
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    USED = "UPDATE access_tokens SET last_used_at = ? WHERE id = ?";
    REVOKE = "UPDATE access_tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL";
    END_SESSIONS = "UPDATE access_tokens SET revoked_at = ? WHERE user_id = ? AND kind = 'session' AND revoked_at IS NULL";
    FORGET_EXPIRED = "DELETE FROM access_tokens WHERE expires_at < ?";
    FORGET_REVOKED = "DELETE FROM access_tokens WHERE revoked_at < ?";

    JOBS = "SELECT id, job_id FROM token_jobs WHERE token_id = ?";
    GRANTED = "SELECT id, job_id FROM token_jobs WHERE token_id = ? AND job_id = ?";
    GRANT = "INSERT INTO token_jobs (token_id, job_id) VALUES (?, ?)";

    /// Locks what is counted for a subject.
    ATTEMPTS = "SELECT subject, attempts, until_at FROM login_attempts WHERE subject = ?",
        mysql: "SELECT subject, attempts, until_at FROM login_attempts WHERE subject = ? FOR UPDATE",
        postgres: "SELECT subject, attempts, until_at FROM login_attempts WHERE subject = ? FOR NO KEY UPDATE";
    FIRST_ATTEMPT = "INSERT INTO login_attempts (subject, attempts, until_at) VALUES (?, ?, ?)";
    NEXT_ATTEMPT = "UPDATE login_attempts SET attempts = ?, until_at = ? WHERE subject = ?";
    FORGET_ATTEMPTS = "DELETE FROM login_attempts WHERE subject = ?";
    FORGET_OLD_ATTEMPTS = "DELETE FROM login_attempts WHERE until_at < ?";
}
