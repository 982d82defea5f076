//! The one list of scenarios. Each makes its own actors; they share the gateway and the runner of the stage.

mod alarms;
mod api;
mod faults;
mod hibernation;
mod hibernation_ts;
mod kv;
mod lifecycle;
mod refusals;
mod restarts;
mod traffic;

use crate::stage::{GatewaySide, RunnerSide, Scenario};

pub const ALL: &[Scenario] = &[
    scenario!(everywhere, lifecycle::a_connected_runner_is_listed_with_what_it_said_about_itself),
    scenario!(everywhere, lifecycle::a_created_actor_starts_once_and_keeps_its_key),
    scenario!(everywhere, traffic::requests_reach_the_actor_as_sent_and_answers_come_back_as_given),
    scenario!(everywhere, traffic::large_bodies_pass_in_both_directions),
    scenario!(everywhere, traffic::fifty_concurrent_requests_each_count_once),
    scenario!(everywhere, traffic::the_gateway_routes_tokens_and_keys),
    scenario!(everywhere, traffic::a_websocket_echoes_text_and_binary_in_order),
    scenario!(everywhere, traffic::a_closed_websocket_is_closed_on_the_other_side),
    scenario!(typescript_on_our_gateway, hibernation_ts::a_socket_of_the_typescript_runner_outlives_its_actor),
    scenario!(everywhere, kv::every_operation_does_what_it_says),
    scenario!(everywhere, kv::values_can_be_read_from_outside),
    scenario!(everywhere, lifecycle::a_sleeping_actor_wakes_on_a_request_and_keeps_its_count),
    scenario!(everywhere, alarms::an_alarm_wakes_a_sleeping_actor_when_it_is_due),
    scenario!(everywhere, alarms::an_alarm_that_was_set_anew_rings_at_its_new_time_only),
    scenario!(everywhere, alarms::an_alarm_that_was_taken_away_does_not_ring),
    scenario!(everywhere, alarms::an_alarm_of_a_sleeping_actor_outlives_a_broken_connection),
    scenario!(our_runner, alarms::an_alarm_due_while_awake_is_told_at_once_and_wakes_nobody_later),
    scenario!(our_runner, alarms::an_alarm_outlives_the_runner_that_set_it),
    scenario!(everywhere, lifecycle::a_deleted_actor_is_gone_and_its_key_is_free),
    scenario!(everywhere, lifecycle::an_actor_can_destroy_itself),
    scenario!(everywhere, api::answers_have_the_engines_shapes),
    scenario!(everywhere, api::refusals_have_the_engines_status_and_code),
    scenario!(everywhere, faults::five_silent_seconds_in_open_work_pass_unnoticed),
    scenario!(everywhere, faults::a_broken_connection_in_open_work_is_repaired),
    scenario!(our_runner, faults::a_sleep_asked_for_while_cut_off_still_happens),
    scenario!(our_runner, faults::a_stop_that_ends_while_cut_off_still_arrives),
    scenario!(everywhere, faults::a_deleted_actor_stops_even_when_its_runner_was_cut_off),
    scenario!(our_runner, restarts::a_crashed_child_is_restarted_under_the_next_generation),
    scenario!(everywhere, restarts::a_terminated_runner_stops_its_actors_and_exits_cleanly),
    scenario!(everywhere, restarts::a_killed_runner_is_replaced_and_the_count_survives),
    scenario!(our_runner, hibernation::a_sleeping_actors_socket_wakes_it_and_every_message_arrives_in_order),
    scenario!(our_runner, hibernation::a_socket_closed_while_its_actor_sleeps_is_told_once),
    scenario!(our_runner, hibernation::a_crash_leaves_hibernating_sockets_open),
    scenario!(our_runner, hibernation::a_cut_in_the_middle_of_traffic_loses_no_message),
    scenario!(our_runner, hibernation::a_killed_runner_is_replaced_and_its_hibernating_sockets_go_on),
    scenario!(our_runner, hibernation::a_destroyed_actors_hibernating_sockets_are_closed),
    scenario!(our_runner, refusals::a_runner_of_an_unknown_namespace_exits_with_69),
    scenario!(our_runner, refusals::a_second_runner_with_the_same_key_makes_the_first_exit_with_69),
    scenario!(our_runner, refusals::an_unreachable_gateway_does_not_end_the_runner),
];

fn everywhere(_: GatewaySide, _: RunnerSide) -> bool {
    true
}

/// For what the TypeScript runner cannot do at all, or is known to do wrong.
fn our_runner(_: GatewaySide, runner: RunnerSide) -> bool {
    runner == RunnerSide::Ours
}

/// For what the engine is known to lose.
fn typescript_on_our_gateway(gateway: GatewaySide, runner: RunnerSide) -> bool {
    (gateway, runner) == (GatewaySide::Ours, RunnerSide::TypeScript)
}

macro_rules! scenario {
    ($fits:ident, $module:ident::$name:ident) => {
        Scenario {
            name: stringify!($name),
            play: |stage| Box::pin(async move { $module::$name(&stage).await }),
            fits: $fits,
        }
    };
}
use scenario;
