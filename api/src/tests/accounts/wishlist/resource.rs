//! `wishlist`: items that a member wants to buy later.

use std::collections::BTreeSet;

use async_trait::async_trait;
use http::StatusCode;
use kindred_members::{MemberError, Members};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::resources::Resource;
use crate::routes::endpoint::prelude::*;
use crate::routes::{done, json};

/// One record a member, so that its limit holds when two items are added at once.
const TABLE: &str = "wishlists";
const RECORD: &str = "items";
/// Items of a wishlist.
const ITEMS_MAX: usize = 200;

/// The resource.
pub(crate) struct Wishlist;

#[async_trait]
impl kindred_members::Resource for Wishlist {
    fn name(&self) -> &'static str {
        "wishlist"
    }

    async fn erase(&self, members: &Members, member: &str) -> Result<(), MemberError> {
        members.records().clear(TABLE, member).await
    }

    async fn export(&self, members: &Members, member: &str) -> Result<Value, MemberError> {
        Ok(json!(items(members, member).await?))
    }
}

impl Resource for Wishlist {
    fn endpoints(&self) -> Vec<Endpoint> {
        let list = get("/v1/members/me/wishlist", SignedIn, list_wishes)
            .says("The wishlist of the caller.")
            .answers::<WishesShown>(200, "the items, ordered by id");
        let add = put("/v1/members/me/wishlist/{item}", SignedIn, add_wish)
            .says("Adds an item to the wishlist.")
            .answers_nothing(204, "added")
            .fails_as(Code::Refused, "the wishlist has 200 items, the limit");
        let remove = delete("/v1/members/me/wishlist/{item}", SignedIn, remove_wish)
            .says("Removes an item from the wishlist.")
            .answers_nothing(204, "removed");
        tagged("account", [list, add, remove])
    }
}

async fn items(members: &Members, member: &str) -> Result<BTreeSet<String>, MemberError> {
    let held = members.records().read(TABLE, member, RECORD).await?;
    Ok(held.map(|held| held.value).unwrap_or_default())
}

/// A wishlist.
#[derive(Serialize, ToSchema)]
pub(crate) struct WishesShown {
    items: BTreeSet<String>,
}

async fn list_wishes(request: Request) -> Answered {
    let items = items(request.members()?, &request.person()?.sub).await?;
    json(StatusCode::OK, &WishesShown { items })
}

async fn add_wish(request: Request) -> Answered {
    let (member, item) = (&request.person()?.sub, request.item()?);
    let add = |held: Option<BTreeSet<String>>| {
        let mut items = held.unwrap_or_default();
        items.insert(item.to_string());
        let fits = items.len() <= ITEMS_MAX;
        (fits.then_some((items, None)), fits)
    };
    let added = request.members()?.records().update(TABLE, member, RECORD, add).await?;
    if added { Ok(done()) } else { Err(MemberError::Refused("wishlist_full").into()) }
}

async fn remove_wish(request: Request) -> Answered {
    let (member, item) = (&request.person()?.sub, request.item()?);
    let remove = |held: Option<BTreeSet<String>>| {
        let left = held.map(|items| items.into_iter().filter(|held| held != item.as_str()).collect::<BTreeSet<_>>());
        (left.map(|items| (items, None)), ())
    };
    request.members()?.records().update(TABLE, member, RECORD, remove).await?;
    Ok(done())
}
