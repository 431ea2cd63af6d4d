//! JSON-RPC id of the request that asks a client's user.

use super::Question;

/// Prefix of a question's JSON-RPC id.
pub(crate) const JSON_RPC_ID: &str = "mcp-courier:elicit:";

impl Question {
    /// Returns the JSON-RPC id of the request to the client. The id contains the question's id, so any server of the
    /// fleet can match an answer to its question.
    pub(crate) fn json_rpc_id(request_id: &str) -> String {
        format!("{JSON_RPC_ID}{request_id}")
    }

    /// Returns the question's id in a JSON-RPC id, if the JSON-RPC id is that of a question.
    #[cfg(feature = "rmcp")]
    pub(crate) fn id_from_json_rpc(id: &str) -> Option<&str> {
        id.strip_prefix(JSON_RPC_ID)
    }
}
