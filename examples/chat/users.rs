//! [`Users`]: authentication by bearer tokens, where the server was given any.

use std::collections::HashMap;

use actix_web::error::InternalError;
use actix_web::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use actix_web::{Error, HttpRequest, HttpResponse};
use mcp_courier::Principal;

/// Users by their tokens. Your server verifies tokens of its authorisation server here.
pub(crate) struct Users(HashMap<String, Principal>);

impl Users {
    pub(crate) fn new(tokens: Vec<(Principal, String)>) -> Self {
        Self(tokens.into_iter().map(|(user, token)| (token, user)).collect())
    }

    /// Returns the user of a request's token. A session that begins with this request belongs to the user, at every
    /// server.
    pub(crate) fn authenticate(&self, request: &HttpRequest) -> Result<Principal, Error> {
        let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer "));
        token.and_then(|token| self.0.get(token)).cloned().ok_or_else(|| {
            let refused = HttpResponse::Unauthorized().insert_header((WWW_AUTHENTICATE, "Bearer")).finish();
            InternalError::from_response("a bearer token is needed", refused).into()
        })
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
