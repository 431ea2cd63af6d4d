//! Questions of background tasks, on their whole way: from a worker through the queue to a client, and back.
//!
//! A claim of [`both!`] is an `async fn(Place)`, and is tested in memory and in a real Redis.

mod client;
mod faults;
#[cfg(feature = "rmcp")]
mod http;
mod identity;
mod many;
mod outcomes;
mod place;
mod relay;

macro_rules! both {
    ($($group:ident: $($claim:ident),+;)+) => {
        mod memory {
            $($(
                #[actix::test]
                async fn $claim() {
                    super::$group::$claim(super::place::Place::in_memory().await).await;
                }
            )+)+
        }

        mod redis {
            $($(
                #[actix::test]
                async fn $claim() {
                    super::$group::$claim(super::place::Place::in_redis().await).await;
                }
            )+)+
        }
    };
}

both! {
    outcomes:
        each_outcome_reaches_the_worker_at_once,
        a_question_comes_as_a_status_without_what_is_internal_and_as_itself,
        a_refused_notification_is_an_error_and_leaves_nothing,
        a_question_that_cannot_be_asked_is_an_error,
        a_type_is_asked_for_and_comes_back,
        a_reporter_tells_how_its_task_goes,
        a_task_that_has_ended_goes_on_for_nobody;
    identity:
        two_in_a_row_and_two_at_once_get_each_their_own_a_thousand_times,
        tasks_that_ask_together_get_each_their_own,
        a_second_answer_is_refused_and_never_satisfies_the_next_question,
        an_answer_by_another_way_counts_once_and_only_under_its_scope,
        an_answer_at_another_server_of_the_fleet_counts_and_frees_the_turn,
        a_dropped_question_is_withdrawn;
    relay:
        a_client_that_comes_back_is_asked_again_and_its_answer_counts_once,
        an_answer_counts_though_its_client_leaves_at_once,
        the_end_of_a_session_whose_client_is_away_cancels_its_questions_at_once,
        at_most_sixteen_are_asked_at_once_and_deliveries_go_on,
        a_question_before_a_failing_notification_is_asked_at_once,
        a_session_that_moved_is_asked_by_its_new_owner,
        the_end_of_a_copy_that_was_left_behind_cancels_nothing,
        a_session_that_panics_over_a_question_cancels_it_and_goes_on;
}
