//! [`ChatService`]: the chat as MCP tools and resources.

use std::sync::Arc;

use mcp_courier::SessionId;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, ContentBlock, ErrorCode, Extensions, Implementation, JsonObject, ListResourceTemplatesResult,
    ListResourcesResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Resource, ResourceContents, ResourceTemplate, ServerCapabilities, ServerConfig, SubscribeRequestParams,
    UnsubscribeRequestParams,
};
use rmcp::schemars::JsonSchema;
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler, schemars, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chat::{Chat, MAX_NAME, MAX_TEXT, Seat};
use crate::poll::{MAX_QUESTION, OPTIONS};
use crate::rooms;

/// Handler of one session.
pub(crate) struct ChatService {
    seat: Arc<Seat>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Join {
    /// Name of the room, 1 to 64 characters. The first member begins the room.
    #[schemars(length(min = 1, max = MAX_NAME))]
    room: String,
    /// Your name in the room, 1 to 64 characters.
    #[schemars(length(min = 1, max = MAX_NAME))]
    name: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Say {
    /// Name of a room that you have joined.
    #[schemars(length(min = 1, max = MAX_NAME))]
    room: String,
    /// Text of the message, 1 to 4096 characters.
    #[schemars(length(min = 1, max = MAX_TEXT))]
    text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Poll {
    /// Name of a room that you have joined.
    #[schemars(length(min = 1, max = MAX_NAME))]
    room: String,
    /// Question to the members, 1 to 1024 characters.
    #[schemars(length(min = 1, max = MAX_QUESTION))]
    question: String,
    /// Options to choose from: 2 to 10 different ones, of 1 to 64 characters.
    #[schemars(length(min = *OPTIONS.start(), max = *OPTIONS.end()), inner(length(min = 1, max = MAX_NAME)))]
    options: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct InRoom {
    /// Name of the room, 1 to 64 characters.
    #[schemars(length(min = 1, max = MAX_NAME))]
    room: String,
}

#[tool_router]
impl ChatService {
    pub(crate) fn new(chat: Arc<Chat>) -> Self {
        Self { seat: Arc::new(Seat::new(chat)) }
    }

    #[tool(description = "Joins a room. From then on its messages reach you as notifications/message.")]
    async fn join(
        &self,
        Parameters(Join { room, name }): Parameters<Join>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let session = self.session(&context.extensions)?;
        self.in_own_task(async move |seat| seat.chat().join(&session, &room, &name).await).await
    }

    #[tool(description = "Says something in a room that you have joined, to all of its members.")]
    async fn say(
        &self,
        Parameters(Say { room, text }): Parameters<Say>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let session = self.session(&context.extensions)?;
        self.in_own_task(async move |seat| seat.chat().say(&session, &room, &text).await).await
    }

    #[tool(
        description = "Asks all members of a room that you have joined to choose one of some options, each by a form. \
                          The result is said in the room when all have answered, or when the time is over."
    )]
    async fn poll(
        &self,
        Parameters(Poll { room, question, options }): Parameters<Poll>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let session = self.session(&context.extensions)?;
        self.in_own_task(async move |seat| seat.chat().poll(&session, &room, &question, options).await).await
    }

    #[tool(description = "Returns the members of a room, and the number of the last message there.")]
    async fn who(&self, Parameters(InRoom { room }): Parameters<InRoom>) -> Result<CallToolResult, ErrorData> {
        self.in_own_task(async move |seat| seat.chat().who(&room).await).await
    }

    #[tool(
        description = "Returns the id of your session. Give it to a worker that shall notify you, and to nobody else."
    )]
    async fn session_id(&self, context: RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        Ok(CallToolResult::structured(json!({"session_id": self.session(&context.extensions)?})))
    }

    #[tool(description = "Leaves a room.")]
    async fn leave(
        &self,
        Parameters(InRoom { room }): Parameters<InRoom>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let session = self.session(&context.extensions)?;
        self.in_own_task(async move |seat| seat.chat().leave(&session, &room).await).await
    }
}

impl ChatService {
    /// Returns the session that calls. The courier's session manager puts its id into the extensions of each message.
    fn session(&self, extensions: &Extensions) -> Result<SessionId, ErrorData> {
        let id = extensions.get::<SessionId>().cloned();
        let id = id.ok_or_else(|| ErrorData::invalid_request("a session is needed: begin with initialize", None))?;
        Ok(self.seat.take(id).clone())
    }

    /// Runs `act` in a task of its own. A call whose client disconnects is dropped, and no operation may stop half-way.
    async fn in_own_task<F>(&self, act: impl FnOnce(Arc<Seat>) -> F) -> Result<CallToolResult, ErrorData>
    where
        F: Future<Output = rooms::Result<Value>> + Send + 'static,
    {
        match tokio::spawn(act(Arc::clone(&self.seat))).await {
            Ok(Ok(done)) => Ok(CallToolResult::structured(done)),
            Ok(Err(refused)) => Ok(CallToolResult::error(vec![ContentBlock::text(refused.to_string())])),
            Err(error) => Err(ErrorData::internal_error(error.to_string(), None)),
        }
    }
}

#[tool_handler]
impl ServerHandler for ChatService {
    fn get_info(&self) -> ServerConfig {
        let mut capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        if let Some(resources) = &mut capabilities.resources {
            resources.subscribe = Some(true);
        }
        // MCP demands this capability of servers that send notifications/message. The builder's method is deprecated.
        capabilities.logging = Some(JsonObject::new());
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("mcp-courier chat", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "A chat. Join a room, and say something in it. The messages of others arrive by themselves.",
            )
    }

    /// Takes the seat of a session that begins, or that comes from another server with its places.
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        // A client without a session has no seat.
        let _ = self.session(&context.extensions);
    }

    /// Accepts every level and changes nothing, because the messages of a chat are not a log.
    #[expect(deprecated, reason = "MCP 2025-11-25 has this method")]
    async fn set_level(
        &self,
        _request: rmcp::model::SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let rooms = self.seat.chat().list().await.map_err(failed)?;
        let resource = |(uri, room)| Resource::new(uri, room).with_mime_type("application/json");
        Ok(ListResourcesResult::with_all_items(rooms.into_iter().map(resource).collect()))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let room = ResourceTemplate::new("chat://rooms/{room}", "room").with_mime_type("application/json");
        Ok(ListResourceTemplatesResult::with_all_items(vec![room]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri;
        let Some(room) = self.seat.chat().read(&uri).await.map_err(failed)? else {
            return Err(ErrorData::resource_not_found("there is no such room", Some(json!({"uri": uri}))));
        };
        let contents = ResourceContents::text(room.to_string(), uri).with_mime_type("application/json");
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let session = self.session(&context.extensions)?;
        self.seat.chat().watch(&session, &request.uri).await.map_err(refused)
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let session = self.session(&context.extensions)?;
        self.seat.chat().unwatch(&session, &request.uri).await.map_err(refused)
    }
}

fn failed(error: mcp_courier::Cause) -> ErrorData {
    ErrorData::new(ErrorCode::INTERNAL_ERROR, error.to_string(), None)
}

fn refused(error: mcp_courier::Cause) -> ErrorData {
    ErrorData::invalid_params(error.to_string(), None)
}
