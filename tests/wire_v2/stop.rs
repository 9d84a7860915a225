//! A receiver that was asked to stop: jobs that are under way may end, nothing else begins.

use parallel_transfer::protocol::Status;

use crate::client::*;
use crate::common::yard::Yard;
use crate::common::*;

// E15
#[test]
fn a_job_goes_on_after_the_signal_until_its_end_and_takes_further_connections() {
    let mut yard = Yard::new();
    let token = new_token();
    let mut control = Client::with(&yard.recv, &open(token));
    let mut worker = Client::joined(&yard.recv, token);
    let (mut idle, mut ended) = (Client::greeted(&yard.recv), Client::opened(&yard.recv));
    ended.finish_well();
    yard.recv.process.signal("TERM");
    // Who has nothing to do is told to go.
    assert_eq!((idle.reply(), ended.reply()), (None, None));
    assert_eq!(worker.ask(&put("a", b"a")), Status::Published);
    let mut further = Client::joined(&yard.recv, token);
    assert_eq!(further.ask(&put("b", b"b")), Status::Published);
    // The same job, opened anew by one who lost its connection.
    drop(control);
    control = Client::with(&yard.recv, &open(token));
    Client::greeted(&yard.recv).expect_refusal(&open_frame(&open(new_token())), "this receiver is stopping");
    Client::greeted(&yard.recv).expect_refusal(&join_frame(new_token()), "no such job");
    let silent = Client::silent(&yard.recv);
    assert_eq!(control.finish_well().files, 2);
    drop(control);
    // Those who stay have nothing to do any more.
    assert_eq!(yard.recv.process.wait(), Some(0), "{}", yard.recv.process.log());
    drop((worker, further, silent));
    assert_eq!(list(&yard.root().join("in")), ["a", "b"]);
}
