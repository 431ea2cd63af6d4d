//! Who may come in: those with a bearer token, if there are any tokens.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};
use mcp_courier::Principal;
use mcp_courier::session::rmcp::acting_as;

/// Users by their tokens. A server of one's own would verify tokens of its authorisation server here.
#[derive(Clone)]
pub(crate) struct Users(Arc<HashMap<String, Principal>>);

impl Users {
    pub(crate) fn new(tokens: Vec<(Principal, String)>) -> Self {
        Self(Arc::new(tokens.into_iter().map(|(user, token)| (token, user)).collect()))
    }
}

/// Reads `USER=TOKEN`.
pub(crate) fn user_and_token(text: &str) -> Result<(Principal, String), String> {
    let (user, token) = text.split_once('=').ok_or("it must be USER=TOKEN")?;
    if token.is_empty() {
        return Err("the token must not be empty".to_owned());
    }
    Ok((Principal::new(user).map_err(|error| error.to_string())?, token.to_owned()))
}

/// The middleware: a session that is begun in here is its user's, and nobody else's, at every server.
pub(crate) async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let users = request.app_data::<Users>().map(|users| Arc::clone(&users.0)).unwrap_or_default();
    let token = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let user = token.and_then(|token| token.strip_prefix("Bearer ")).and_then(|token| users.get(token)).cloned();
    if user.is_none() && !users.is_empty() {
        let refused = HttpResponse::Unauthorized().insert_header((WWW_AUTHENTICATE, "Bearer")).finish();
        return Ok(request.into_response(refused).map_into_right_body());
    }
    Ok(acting_as(user, next.call(request)).await?.map_into_left_body())
}
