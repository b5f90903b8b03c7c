use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// One request that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `HEAD` or `GET`.
    pub method: String,
    /// The path, percent-encoded as sent, with the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What the server answers.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    claimed_length: Option<usize>,
    endless: bool,
    delay: Duration,
}

/// Bytes after which an endless answer ends after all, lest a client that takes all of it fills the disk.
const ENDLESS: usize = 64 << 20;

impl Reply {
    /// A status and a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            claimed_length: None,
            endless: false,
            delay: Duration::ZERO,
        }
    }

    /// A file as the Hub serves it: with its entity tag and its commit.
    pub fn file(commit: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let tag = format!(
            "\"{:08x}-{}\"",
            body.iter().fold(0u32, |a, &b| a.wrapping_mul(31) + u32::from(b)),
            body.len()
        );
        Self::new(200, body).header("ETag", &tag).header("X-Repo-Commit", commit)
    }

    /// What the Hub says of a repository's revision.
    pub fn revision(repo: &str, commit: &str) -> Self {
        let body = format!(r#"{{"_id": "1", "id": "{repo}", "modelId": "{repo}", "sha": "{commit}"}}"#);
        Self::new(200, body).header("Content-Type", "application/json")
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Claims another length than the body has.
    pub fn claiming(mut self, length: usize) -> Self {
        self.claimed_length = Some(length);
        self
    }

    /// Sends the body over and over, without a length, until the client goes away or has 64 MiB.
    pub fn without_end(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Waits before answering.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A Hub on the loopback interface, for as long as the value lives.
pub struct LoopbackHub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl LoopbackHub {
    /// Starts to answer each request with what `answer` gives.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port's address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        let accepting = std::thread::spawn({
            let (requests, stopping) = (Arc::clone(&requests), Arc::clone(&stopping));
            move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let Ok(stream) = stream else { continue };
                    let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                    std::thread::spawn(move || {
                        let Some(request) = read_request(&stream) else { return };
                        let reply = answer(&request);
                        requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                        // A client that has gone away is the client's affair.
                        let _ = write_reply(stream, &request, &reply);
                    });
                }
            }
        });
        Self { address, requests, stopping, accepting: Some(accepting) }
    }

    /// The server's address, to use as endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, in the order of their answers.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of requests of a method so far.
    pub fn count(&self, method: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method).count()
    }
}

impl Drop for LoopbackHub {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    Some(Request { method, path, headers })
}

fn write_reply(mut stream: TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    std::thread::sleep(reply.delay);
    let mut head = format!("HTTP/1.1 {} status\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.endless {
        head += &format!("Content-Length: {}\r\n", reply.claimed_length.unwrap_or(reply.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        let times = if reply.endless { ENDLESS / reply.body.len().max(1) } else { 1 };
        (0..times).try_for_each(|_| stream.write_all(&reply.body))?;
    }
    stream.flush()
}
