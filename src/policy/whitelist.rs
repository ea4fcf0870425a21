//! stub
#![allow(missing_docs)]
use super::rules::Compat;
#[derive(Debug)] pub struct ClientWhitelist;
#[derive(Debug)] pub struct RecipientWhitelist;
impl ClientWhitelist { pub fn new(_:Compat)->Self{Self} pub fn match_name(&self,_:&[u8])->Option<&()>{None} pub fn match_address(&self,_:&[u8],_:Option<std::net::IpAddr>)->Option<&()>{None} }
impl RecipientWhitelist { pub fn match_recipient(&self,_:&[u8])->Option<&()>{None} }
