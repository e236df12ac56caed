//! Several devices at work at the same time: a thread for each.
//!
//! Points are read and results are written by the thread that asks, so that a device computes while the files are busy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Error, Result};

use super::FlowModel;

/// Questions that wait for each device while it answers one.
const AHEAD: usize = 1;

/// What to predict.
struct Question {
    domain: String,
    first: u64,
    points: Vec<[f32; 3]>,
}

/// The index of the first point of a question, and its fields.
type Answer = (u64, Result<Vec<Vec<f32>>>);

/// Models on several devices that answer questions, each the next one that nobody has.
pub(crate) struct Team {
    /// Ends the threads when it is dropped.
    questions: Option<Sender<Question>>,
    answers: Receiver<Answer>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    /// Starts a thread for each model.
    pub(crate) fn new(models: Vec<Box<dyn FlowModel + Send>>) -> Self {
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        let asked = Arc::new(Mutex::new(asked));
        let start = |model| {
            let (asked, answered) = (asked.clone(), answered.clone());
            std::thread::spawn(move || work(model, &asked, &answered))
        };
        let threads = models.into_iter().map(start).collect();
        Self { questions: Some(questions), answers, threads }
    }

    /// Questions that should be asked before the first answer is waited for.
    pub(crate) fn width(&self) -> usize {
        self.threads.len() * (1 + AHEAD)
    }

    /// Asks for the fields of a domain at some points, of which `first` is the index of the first.
    pub(crate) fn ask(&self, domain: &str, first: u64, points: Vec<[f32; 3]>) -> Result<()> {
        let question = Question { domain: domain.to_string(), first, points };
        let asked = self.questions.as_ref().map(|questions| questions.send(question));
        asked.and_then(Result::ok).context("no device is left")
    }

    /// Waits for the next answer to one of the questions, in any order.
    pub(crate) fn answer(&self) -> Result<Answer> {
        self.answers.recv().context("no device is left")
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.questions.take();
        // Whoever panicked has answered with that.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn work(mut model: Box<dyn FlowModel + Send>, asked: &Mutex<Receiver<Question>>, answered: &Sender<Answer>) {
    loop {
        // Waiting with the lock held: the others wait for it instead.
        let next = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { domain, first, points }) = next else { return };
        let predicted = catch_unwind(AssertUnwindSafe(|| model.predict(&domain, first, &points)));
        let fields = predicted.unwrap_or_else(|_| Err(Error::msg("the thread of a device panicked")));
        if answered.send((first, fields)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes its time, and fails or panics at some points.
    struct Slow(u64);

    impl FlowModel for Slow {
        fn predict(&mut self, domain: &str, first: u64, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>> {
            std::thread::sleep(Duration::from_millis(self.0));
            match first {
                70 => anyhow::bail!("out of memory"),
                80 => panic!("a bug"),
                _ => Ok(vec![points.iter().map(|point| point[0] + domain.len() as f32).collect()]),
            }
        }
    }

    #[test]
    fn every_question_is_answered_once_by_whichever_device_is_free() {
        let team = Team::new(vec![Box::new(Slow(9)), Box::new(Slow(1)), Box::new(Slow(1))]);
        assert_eq!(team.width(), 6);
        for first in (0..90).step_by(10) {
            team.ask("wake", first, vec![[first as f32; 3]]).unwrap();
        }
        let mut answers: Vec<_> = (0..9).map(|_| team.answer().unwrap()).collect();
        answers.sort_by_key(|(first, _)| *first);
        for (at, (first, fields)) in answers.into_iter().enumerate() {
            assert_eq!(first, 10 * at as u64);
            match first {
                70 => assert_eq!(fields.unwrap_err().to_string(), "out of memory"),
                80 => assert_eq!(fields.unwrap_err().to_string(), "the thread of a device panicked"),
                _ => assert_eq!(fields.unwrap(), [[first as f32 + 4.0]]),
            }
        }
    }
}
