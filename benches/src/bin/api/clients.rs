//! Clients that ask one question after the other.

use std::io::{self, Error};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Whom they ask, and what.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: String,
    /// None for a target that has one question only.
    token: Option<String>,
}

/// What they heard.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// How long each took.
    pub(crate) times: Vec<Duration>,
    /// Those that were none, or a refusal.
    pub(crate) errors: usize,
    length: Duration,
}

impl Answers {
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(u32::try_from(self.times.len()).unwrap_or(u32::MAX)) / self.length.as_secs_f64()
    }
}

impl Target {
    pub(crate) fn appliance(address: &str, token: &str) -> Self {
        Self { address: format!("{address}/api/v1"), token: Some(token.to_owned()) }
    }

    pub(crate) fn bare(address: &str) -> Self {
        Self { address: address.to_owned(), token: None }
    }

    /// As a client that has not asked yet.
    pub(crate) fn client() -> io::Result<Client> {
        Client::builder().timeout(Duration::from_secs(30)).build().map_err(Error::other)
    }

    fn let_in(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, client: &Client, path: &str) -> reqwest::Result<Value> {
        let request = client.get(format!("{}{path}", self.address));
        self.let_in(request).send().await?.error_for_status()?.json().await
    }

    /// Asks for a replication; the same key answers the same job.
    pub(crate) async fn replicate(
        &self,
        client: &Client,
        vm: &str,
        image: &str,
        key: &str,
    ) -> reqwest::Result<Value> {
        let body = json!({ "vm_path": format!("/DC/vm/{vm}"), "source": { "disks": [{ "key": "disk-2000", "source": image }] } });
        let request = client.post(format!("{}/replications", self.address)).header("Idempotency-Key", key);
        self.let_in(request).json(&body).send().await?.error_for_status()?.json().await
    }
}

/// So many clients ask for so long.
pub(crate) async fn ask(target: &Target, clients: u32, length: Duration) -> io::Result<Answers> {
    let jobs = match target.token {
        Some(_) => known(target).await.map_err(Error::other)?,
        None => Vec::new(),
    };
    let until = Instant::now() + length;
    let mut asking = JoinSet::new();
    for number in 0..clients {
        let (target, jobs, client) = (target.clone(), jobs.clone(), Target::client()?);
        asking.spawn(async move { one(&target, &client, &jobs, number, until).await });
    }
    let mut all = Answers { length, ..Answers::default() };
    while let Some(answers) = asking.join_next().await {
        let answers = answers.map_err(Error::other)?;
        all.times.extend(answers.times);
        all.errors += answers.errors;
    }
    Ok(all)
}

/// Ids of jobs that there are.
async fn known(target: &Target) -> reqwest::Result<Vec<String>> {
    let listed = target.get(&Target::client().expect("it was made before"), "/replications?limit=50").await?;
    let rows = listed["items"].as_array().cloned().unwrap_or_default();
    Ok(rows.iter().filter_map(|row| Some(row["job_id"].as_str()?.to_owned())).collect())
}

async fn one(target: &Target, client: &Client, jobs: &[String], number: u32, until: Instant) -> Answers {
    let (mut answers, mut turn) = (Answers::default(), usize::try_from(number).unwrap_or(0));
    while Instant::now() < until {
        turn += 1;
        let path = path(jobs, turn);
        let begun = Instant::now();
        match target.token {
            Some(_) => match target.get(client, &path).await {
                Ok(_) => answers.times.push(begun.elapsed()),
                Err(_) => answers.errors += 1,
            },
            None => match target.get(client, "/").await {
                Ok(_) => answers.times.push(begun.elapsed()),
                Err(_) => answers.errors += 1,
            },
        }
    }
    answers
}

/// What operators and their programs look at: how far jobs are most of all.
fn path(jobs: &[String], turn: usize) -> String {
    let job = jobs.get(turn / 7 % jobs.len().max(1)).map_or("none", String::as_str);
    match turn % 10 {
        0 => "/replications?limit=50".to_owned(),
        1 => "/vms?limit=50".to_owned(),
        2 => "/volumes?limit=50".to_owned(),
        3 => format!("/replications/{job}/disks"),
        4 => format!("/replications/{job}/logs?limit=50"),
        5 | 6 => format!("/replications/{job}"),
        _ => format!("/replications/{job}/progress"),
    }
}
