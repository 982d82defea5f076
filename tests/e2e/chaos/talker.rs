//! Clients that number what they say, and note what they hear.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::dice::Dice;
use crate::actor::now_ms;

/// What one socket of a client went through.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Unique; the path it was opened with ends with it.
    pub name: String,
    pub actor: String,
    /// When it was connected, as the gateway sees it.
    pub opened: i64,
    /// How many messages were handed to the network: `name 0`, `name 1`, …
    pub said: u64,
    /// The actor's first frame was heard.
    pub greeted: usize,
    /// Answers as they came: when, and to which message.
    pub answers: Vec<(i64, u64)>,
    /// What was heard that should not have been said.
    pub nonsense: Vec<String>,
    pub end: Option<End>,
}

/// How a socket ended, for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it.
    Left,
    /// The other side closed it, with code and reason.
    Closed { at: i64, code: u16, reason: String },
    /// The connection ended without a word.
    Broken { at: i64, why: String },
}

/// What clients do at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// They talk, leave, and come again.
    Talk,
    /// They only listen.
    Listen,
    /// They leave for good.
    Leave,
}

/// All clients of a scene.
pub struct Talkers {
    mood: watch::Sender<Mood>,
    transcripts: Arc<Mutex<Vec<Arc<Mutex<Transcript>>>>>,
    tasks: JoinSet<()>,
}

impl Talkers {
    /// Lets them all begin, spread over the actors.
    pub fn start(authority: &str, actors: &[String], count: usize, dice: &mut Dice) -> Self {
        let mood = watch::Sender::new(Mood::Talk);
        let transcripts = Arc::default();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let talker = Talker {
                authority: authority.to_owned(),
                actor: actors[number % actors.len()].clone(),
                name: format!("c{number}"),
                mood: mood.subscribe(),
                transcripts: Arc::clone(&transcripts),
                dice: dice.fork(),
            };
            tasks.spawn(talker.run());
        }
        Talkers { mood, transcripts, tasks }
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// What every socket went through so far.
    pub fn transcripts(&self) -> Vec<Transcript> {
        let all = self.transcripts.lock().expect("no panic").clone();
        all.iter().map(|one| one.lock().expect("no panic").clone()).collect()
    }

    /// Sends them away, and waits until the last one is gone.
    pub async fn leave(&mut self) {
        self.set(Mood::Leave);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client fails");
        }
    }
}

struct Talker {
    authority: String,
    actor: String,
    name: String,
    mood: watch::Receiver<Mood>,
    transcripts: Arc<Mutex<Vec<Arc<Mutex<Transcript>>>>>,
    dice: Dice,
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

impl Talker {
    async fn run(mut self) {
        for number in 0.. {
            let name = format!("{}-{number}", self.name);
            let Some(socket) = self.connect(&name).await else { return };
            let transcript = Transcript { name, actor: self.actor.clone(), opened: now_ms(), ..Transcript::default() };
            let transcript = Arc::new(Mutex::new(transcript));
            self.transcripts.lock().expect("no panic").push(Arc::clone(&transcript));
            let end = self.talk(socket, &transcript).await;
            transcript.lock().expect("no panic").end = Some(end);
        }
    }

    /// A socket to the actor; nothing when it is too late for one. Refusals are no news: the gateway may be gone.
    async fn connect(&mut self, name: &str) -> Option<Socket> {
        while *self.mood.borrow() == Mood::Talk {
            let url = format!("ws://{}/gateway/{}/?name={name}", self.authority, self.actor);
            let mut request = url.into_client_request().expect("a URL");
            request.headers_mut().insert("sec-websocket-protocol", "rivet".parse().expect("a value"));
            if let Ok(Ok((socket, _))) = timeout(CONNECT_LIMIT, connect_async(request)).await {
                return Some(socket);
            }
            sleep(Duration::from_millis(200)).await;
        }
        None
    }

    async fn talk(&mut self, mut socket: Socket, transcript: &Mutex<Transcript>) -> End {
        let leaves_after = self.dice.between(20, 200);
        let mut next = Instant::now() + self.pause();
        loop {
            let mood = *self.mood.borrow_and_update();
            let said = transcript.lock().expect("no panic").said;
            if mood == Mood::Leave || mood == Mood::Talk && said >= leaves_after {
                return leave(socket, transcript).await;
            }
            tokio::select! {
                heard = socket.next() => if let Some(end) = hear(heard, transcript) {
                    // Answers the close.
                    let _ = timeout(Duration::from_millis(200), socket.next()).await;
                    return end;
                },
                () = sleep_until(next), if mood == Mood::Talk => {
                    next = Instant::now() + self.pause();
                    let text = {
                        let mut transcript = transcript.lock().expect("no panic");
                        let answered = transcript.answers.last().map_or(0, |(_, seq)| seq + 1);
                        // With so much unanswered it talks slowly; a lost answer must not silence it.
                        if said > answered + 40 && self.dice.between(0, 10) > 0 {
                            continue;
                        }
                        transcript.said += 1;
                        format!("{} {said}", transcript.name)
                    };
                    // That it is broken is heard, with the reason.
                    let _ = socket.send(Message::text(text)).await;
                }
                _ = self.mood.changed() => {}
            }
        }
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.dice.between(100, 1_000))
    }
}

/// Closes, and hears what is still said.
async fn leave(mut socket: Socket, transcript: &Mutex<Transcript>) -> End {
    let frame = CloseFrame { code: CloseCode::from(LEFT.0), reason: LEFT.1.into() };
    if let Err(error) = socket.close(Some(frame)).await {
        return End::Broken { at: now_ms(), why: error.to_string() };
    }
    let rest = async { while hear(socket.next().await, transcript).is_none() {} };
    let _ = timeout(Duration::from_secs(5), rest).await;
    End::Left
}

fn hear(heard: Option<Result<Message, Error>>, transcript: &Mutex<Transcript>) -> Option<End> {
    let at = now_ms();
    let mut transcript = transcript.lock().expect("no panic");
    match heard {
        Some(Ok(Message::Text(text))) => {
            let answer = text.strip_prefix('#').and_then(|rest| rest.split_once(' '));
            let answer = answer.and_then(|(seq, body)| Some((seq.parse::<u64>().ok()?, body)));
            match answer {
                Some((seq, body)) if body == format!("{} {seq}", transcript.name) => {
                    transcript.answers.push((at, seq));
                }
                _ if text == "hello" => transcript.greeted += 1,
                _ => transcript.nonsense.push(text.to_string()),
            }
            None
        }
        Some(Ok(Message::Close(frame))) => {
            let (code, reason) =
                frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
            Some(End::Closed { at, code, reason })
        }
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(End::Broken { at, why: error.to_string() }),
        None => Some(End::Broken { at, why: "no more".to_owned() }),
    }
}

/// How clients close.
pub const LEFT: (u16, &str) = (4001, "enough");

/// Longer than the gateway waits for an actor.
const CONNECT_LIMIT: Duration = Duration::from_secs(40);
