//! `wishlist`: what a member means to buy one day.

use async_trait::async_trait;
use http::StatusCode;
use kindred_members::{MemberError, Members};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::resources::Resource;
use crate::routes::endpoint::prelude::*;
use crate::routes::{done, json};

/// By member, then by item.
const TABLE: &str = "wishlists";
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
            .fails(409, "the wishlist has 200 items, the limit");
        let remove = delete("/v1/members/me/wishlist/{item}", SignedIn, remove_wish)
            .says("Removes an item from the wishlist.")
            .answers_nothing(204, "removed");
        tagged("account", [list, add, remove])
    }
}

async fn items(members: &Members, member: &str) -> Result<Vec<String>, MemberError> {
    let held = members.records().all::<()>(TABLE, member, "").await?;
    Ok(held.into_iter().map(|(item, _)| item).collect())
}

/// A wishlist.
#[derive(Serialize, ToSchema)]
pub(crate) struct WishesShown {
    items: Vec<String>,
}

async fn list_wishes(request: Request) -> Answered {
    let items = items(request.members()?, &request.person()?.sub).await?;
    json(StatusCode::OK, &WishesShown { items })
}

async fn add_wish(request: Request) -> Answered {
    let (members, member, item) = (request.members()?, &request.person()?.sub, request.item()?);
    if items(members, member).await?.len() >= ITEMS_MAX {
        return Err(MemberError::Refused("wishlist_full").into());
    }
    members.records().insert(TABLE, member, item.as_str(), &(), None).await?;
    Ok(done())
}

async fn remove_wish(request: Request) -> Answered {
    request.members()?.records().remove(TABLE, &request.person()?.sub, request.item()?.as_str()).await?;
    Ok(done())
}
