//! The contract of the queue, as `src/backend.rs` numbers it: every claim is tested against every backend.
//!
//! A claim is an `async fn(&Place)`; [`contract!`] makes of it `memory::claim`, `redis::claim`, and
//! `redis_shared::claim`, where the owners share the connections of their process. With the feature `seal` also
//! `memory_sealed::claim` and `redis_sealed::claim`, where everything that is queued is sealed. `cluster::clause` and
//! `cluster_shared::clause` test all claims of a clause over a Redis Cluster of three masters, which takes 2 seconds to
//! begin its service.

mod collapse;
mod deduplication;
mod fleet;
mod inspection;
mod lease;
mod letters;
mod model;
mod place;
mod previous;
mod push;
mod questions;
mod receipts;
mod replace;
mod take;
mod wait;

/// Makes the tests of all claims over one kind of place.
macro_rules! over {
    ($place:expr; $($clause:ident: $($claim:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $claim() {
                let place = $place;
                super::$clause::$claim(&place).await;
                place.assert_no_key_without_expiry().await;
            }
        )+)+
    };
}

/// Makes a test of each clause over one kind of place, whose claims share a place.
macro_rules! over_one {
    ($place:expr; $($clause:ident: $($claim:ident),+;)+) => {
        $(
            #[tokio::test]
            async fn $clause() {
                let place = $place;
                $(
                    println!("{}", stringify!($claim));
                    super::$clause::$claim(&place).await;
                    place.assert_no_key_without_expiry().await;
                    place.empty().await;
                )+
            }
        )+
    };
}

macro_rules! contract {
    ($($claims:tt)+) => {
        mod memory {
            over! { super::place::Place::in_memory(); $($claims)+ }
        }

        mod redis {
            over! { super::place::Place::in_redis(); $($claims)+ }
        }

        #[cfg(feature = "seal")]
        mod memory_sealed {
            over! { super::place::Place::in_memory().sealed(); $($claims)+ }
        }

        #[cfg(feature = "seal")]
        mod redis_sealed {
            over! { super::place::Place::in_redis().sealed(); $($claims)+ }
        }

        mod redis_shared {
            over! { super::place::Place::in_redis_shared(); $($claims)+ }
        }

        #[cfg(feature = "cluster")]
        mod cluster {
            over_one! { super::place::Place::in_cluster().await; $($claims)+ }
        }

        #[cfg(feature = "cluster")]
        mod cluster_shared {
            over_one! { super::place::Place::in_cluster_shared().await; $($claims)+ }
        }
    };
}

contract! {
    // Clauses 1, 2 and 9.
    push:
        batches_come_in_the_order_of_the_pushes,
        sessions_that_are_pushed_to_together_get_each_their_own,
        session_ids_that_look_like_keys_do_not_collide,
        what_is_queued_is_stamped_by_the_queues_clock,
        a_queue_full_of_messages_refuses_and_what_came_back_can_be_pushed_again_in_order,
        after_a_refusal_nothing_more_of_a_call_is_queued_however_long_it_is,
        a_queue_full_of_bytes_refuses_and_is_never_beyond_its_bound,
        a_message_that_is_too_large_stops_its_session_and_no_other,
        a_notification_that_stands_twice_in_a_call_is_queued_once,
        pushing_nothing_gives_nothing,
        a_probe_leaves_nothing_behind_and_lengths_count_what_is_queued,
        a_short_lived_message_does_not_cut_the_life_of_a_long_lived_one,
        what_nobody_takes_goes_when_the_last_of_it_has_expired,
        a_push_says_whether_its_session_is_owned_known_or_unknown,
        of_sessions_of_fastmcp_servers_nothing_is_said;
    // Clauses 3, 4, 10 and 12.
    take:
        looking_takes_nothing_away,
        an_acknowledgement_removes_what_it_names_and_nothing_else,
        what_is_pushed_meanwhile_stands_behind_what_is_acknowledged,
        an_acknowledgement_whose_answer_was_lost_can_be_repeated,
        a_queue_that_was_emptied_and_filled_again_is_not_acknowledged,
        a_message_that_only_ends_alike_is_not_acknowledged,
        an_acknowledgement_of_more_than_there_is_removes_nothing,
        an_acknowledgement_of_none_removes_nothing,
        a_batch_is_bounded_in_messages,
        a_batch_is_bounded_in_bytes,
        one_message_is_given_however_large,
        what_cannot_be_decoded_is_an_item_like_others;
    // Clauses 5, 6 and 11.
    lease:
        the_newest_claim_wins,
        a_claim_says_whether_it_displaced_another_owner,
        to_another_than_the_owner_the_queue_is_lost,
        an_absent_lease_is_reclaimed_by_a_take,
        an_absent_lease_is_reclaimed_by_a_renewal,
        an_absent_lease_is_not_reclaimed_by_a_wait,
        an_absent_lease_can_be_claimed_without_taking_anothers,
        a_lease_ends_by_release_of_its_owner_only,
        a_lease_ends_by_its_time,
        a_lease_that_is_renewed_does_not_end,
        a_lease_that_ran_out_can_be_claimed_again_by_its_owner,
        a_queue_does_not_run_out_under_its_owner,
        whoever_loses_the_lease_learns_it_at_once,
        whoever_waits_learns_of_a_takeover_at_once,
        whoever_reclaimed_by_a_take_learns_of_a_takeover_at_once,
        whoever_was_in_doubt_and_still_owns_learns_of_the_next_takeover,
        live_sessions_are_those_that_someone_owns;
    // Clause 7.
    replace:
        a_failed_attempt_stands_where_the_message_stood,
        a_failed_attempt_survives_its_owner,
        a_failed_attempt_is_not_written_over_another_message,
        a_failed_attempt_is_not_written_without_the_lease;
    // Clauses 7 and 9, in a fleet that is being upgraded.
    previous:
        a_message_of_the_previous_form_keeps_its_times,
        a_dead_letter_of_the_previous_form_is_redriven_in_this_form;
    // Clause 8.
    wait:
        a_wait_ends_at_the_next_push_and_takes_nothing_away,
        a_wait_ends_at_once_where_something_is_queued,
        a_wait_ends_after_its_time,
        a_wait_does_not_disturb_order,
        all_who_wait_are_woken,
        a_wait_that_was_dropped_loses_nothing;
    // Clause 13.
    questions:
        the_first_answer_counts_and_no_other,
        every_answer_survives_the_queue,
        whoever_waits_is_woken_by_the_answer,
        an_answer_to_another_question_is_refused,
        an_answer_under_another_scope_finds_no_question,
        a_withdrawn_question_is_over_and_the_next_is_untouched_by_it,
        a_task_asks_one_question_at_a_time,
        an_answer_that_nobody_took_is_none_to_the_next_question,
        waiting_can_be_dropped_and_taken_up_again,
        what_was_delivered_and_not_answered_is_an_open_question_for_any_owner,
        an_acknowledgement_over_a_new_connection_opens_its_questions_too,
        one_who_is_not_the_owner_opens_no_question;
    // Clauses 14 and 15.
    fleet:
        a_session_is_remembered_by_all_and_forgotten_by_all,
        a_session_that_has_ended_is_not_remembered_again,
        a_session_is_another_under_another_principal,
        what_is_known_of_sessions_is_said_of_each,
        a_session_that_never_was_is_not_remembered_as_ended,
        a_session_lives_as_long_as_it_is_used,
        an_end_is_told_to_all_and_a_ping_to_one;
    // Clauses 16 and 17.
    letters:
        what_is_discarded_is_kept_with_its_reason_the_oldest_first,
        every_reason_survives,
        bytes_of_any_kind_are_kept_as_they_are,
        nothing_is_kept_where_nothing_is_removed,
        by_default_nothing_is_kept,
        the_oldest_make_room,
        dead_letters_are_bounded_in_bytes,
        letters_of_messages_larger_than_are_allowed_are_bounded_too,
        a_letter_larger_than_all_may_be_drives_no_other_out,
        a_page_beyond_all_letters_is_empty,
        a_dead_letter_goes_at_its_time_whatever_came_after,
        a_session_is_found_for_no_longer_than_its_letters_live,
        redriving_queues_in_order_behind_what_is_queued_from_the_beginning,
        single_letters_can_be_redriven_by_their_ids,
        what_does_not_fit_stays_and_the_answer_says_how_many_went,
        a_letter_is_redriven_only_where_it_was_seen,
        two_who_redrive_at_once_lose_and_double_nothing,
        dead_letters_are_purged_and_their_sessions_found,
        what_is_in_no_queue_any_more_can_be_kept_too;
    // Clause 18.
    receipts:
        a_receipt_is_queued_with_the_push_and_settled_with_the_acknowledgement,
        only_who_asked_gets_a_receipt,
        a_refused_push_leaves_no_receipt,
        what_was_delivered_stands_for_good,
        an_acknowledgement_that_finds_the_queue_changed_tells_what_was_delivered_and_not_what_was_discarded,
        a_redriven_one_is_queued_again,
        what_expires_without_an_owner_says_so,
        a_receipt_is_kept_for_a_bounded_time,
        all_who_wait_for_a_receipt_are_woken,
        many_receipts_of_one_batch_are_settled_each_by_its_own_fate;
    // Clause 19.
    deduplication:
        a_key_that_was_pushed_before_queues_nothing_and_answers_with_the_first,
        a_key_is_remembered_whatever_became_of_its_notification,
        the_receipt_of_the_first_is_found_by_the_answer_to_the_second,
        a_refused_push_leaves_no_key,
        a_notification_that_is_pushed_again_under_its_id_is_its_own_duplicate,
        a_key_that_stands_twice_in_a_call_is_queued_once_and_the_others_keep_their_order,
        a_call_that_a_bound_stops_remembers_the_keys_of_what_it_queued_only,
        a_full_queue_answers_a_duplicate,
        each_session_has_its_own_keys,
        a_key_is_forgotten_after_the_window,
        the_newest_keys_are_remembered_and_the_oldest_forgotten,
        a_redriven_letter_is_not_stopped_by_its_own_key;
    // Clauses 20 and 21.
    inspection:
        each_session_is_listed_once_whatever_it_has,
        a_report_has_all_that_is_known_of_a_session,
        a_peek_shows_the_oldest_within_its_bounds_and_what_cannot_be_decoded,
        looking_all_the_time_disturbs_no_delivery,
        looking_lengthens_no_life,
        a_purge_removes_what_there_is_and_settles_its_receipts,
        an_owner_under_which_a_queue_is_purged_removes_nothing_else,
        a_purge_beside_an_owner_removes_nothing_that_was_pushed_later,
        a_session_of_the_same_id_is_found_under_any_user_and_prefix,
        a_server_is_listed_until_its_record_is_removed_or_its_time_is_over;
    // Clause 22.
    collapse:
        while_nobody_owns_a_session_the_newest_replaces_the_older_and_the_others_keep_their_order,
        what_was_pushed_under_an_owner_is_never_replaced,
        what_waits_when_an_owner_comes_is_never_replaced_however_it_comes,
        the_receipt_of_a_replaced_one_says_so,
        what_lives_longer_is_not_replaced,
        what_is_pushed_again_replaces_nothing,
        a_push_that_is_refused_replaces_nothing,
        in_one_call_the_last_of_each_key_is_left,
        kinds_collapse_by_default_and_not_where_that_is_off,
        what_is_too_large_or_under_too_many_keys_is_queued_as_all_others,
        a_duplicate_replaces_nothing;
    // Whatever order they come in.
    model:
        any_interleaving_of_owners_agrees_with_the_model;
}
