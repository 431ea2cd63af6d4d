//! Answers about the subscribers of a supervisor: their number, and the list of them.
//!
//! Both read what subscribers have noted by themselves. A busy or stuck subscriber delays no answer.

use actix::prelude::*;

use super::limits::Place;
use super::{GetSubscriberCount, ListSubscribers, SupervisorActor};

impl Handler<GetSubscriberCount> for SupervisorActor {
    type Result = usize;

    fn handle(&mut self, _: GetSubscriberCount, _: &mut Context<Self>) -> usize {
        self.children.len()
    }
}

impl Handler<ListSubscribers> for SupervisorActor {
    type Result = MessageResult<ListSubscribers>;

    fn handle(&mut self, _: ListSubscribers, _: &mut Context<Self>) -> Self::Result {
        let infos = self.children.iter().map(|(id, child)| {
            let placement = child.place.as_ref().map(Place::placement);
            child.context.stats.info(id.clone(), placement)
        });
        MessageResult(infos.collect())
    }
}
