//! What people are told, by stable code, in zh-CN and en. The Chinese of the seed's own messages is the seed's (R15).

use kindred_config::members::Language;

/// (code, zh-CN, en). `{min}` stands for the least length of a password.
const TEXTS: &[(&str, &str, &str)] = &[
    (
        "username_invalid",
        "用户名不能为空且长度不能小于2",
        "The username must have 2 to 32 characters: letters, digits and . _ - ', with one letter at least",
    ),
    ("username_reserved", "该用户名不可使用", "This username cannot be used"),
    ("phone_invalid", "手机号码不合法", "This is not a valid phone number"),
    ("phone_region", "不支持该地区的手机号码", "Phone numbers of this region are not accepted"),
    ("email_invalid", "邮箱格式不正确", "This is not a valid e-mail address"),
    ("password_short", "密码不能为空且长度不能小于{min}", "The password must have at least {min} characters"),
    ("password_long", "密码太长", "The password is too long (at most 1024 bytes)"),
    ("password_weak", "密码太容易被猜到", "The password is too easy to guess; make it longer or less regular"),
    (
        "password_breached",
        "该密码太常见或已泄露",
        "This password is common, known from a breach, or made of your own or the shop's name",
    ),
    ("agreement_stale", "请阅读并同意当前版本的用户协议", "Please read and accept the current user agreement"),
    ("language_unknown", "不支持的语言", "This language is not available"),
    ("address_invalid", "地址不正确", "The address is not valid"),
    ("addresses_many", "地址太多", "There are too many addresses"),
    ("invite_unknown", "邀请码无效", "There is no such invite code"),
    ("role_unknown", "没有这个角色", "There is no such role"),
    ("role_invalid", "角色不正确", "The role is not valid"),
    ("query_short", "搜索内容太短", "The search text is too short"),
    ("limit_invalid", "数量必须在1到200之间", "The limit must be 1 to 200"),
    ("cursor_invalid", "游标无效", "The cursor is not valid"),
    ("identifier_taken", "用户名或手机号码或邮箱已经存在", "The username, phone or e-mail is taken"),
    ("username_taken", "用户名已经存在", "The username is taken"),
    ("registered", "注册成功", "Registered"),
    ("registration_accepted", "如果该邮箱是新的,您将收到一封邮件", "If the address is new you get a mail"),
    ("unauthenticated", "用户名或密码错误", "The account or the password is wrong"),
    ("reauthentication_failed", "当前密码错误", "The current password is wrong"),
    ("challenge_failed", "验证未通过,请重试", "The check was not passed; please try again"),
    ("code_wrong", "验证码错误或已过期", "The code is wrong or expired"),
    ("token_gone", "链接已使用或已过期", "The link is used or expired"),
    ("throttled", "尝试次数过多,请稍后再试", "Too many tries; please wait"),
    ("busy", "系统繁忙,请稍后再试", "Too much to do; please try again"),
    ("insufficient_scope", "没有权限", "This needs a permission that you do not have"),
    ("not_found", "不存在", "There is none"),
    ("changed", "内容已被修改,请刷新", "It was changed meanwhile; load it again"),
    ("refused", "当前状态不允许此操作", "The state does not allow this"),
    ("email_verified_already", "邮箱已经验证过", "The e-mail is verified already"),
    ("account_changing", "账户正在被修改,请稍后再试", "The account is being changed; please try again"),
    ("factor_there", "已启用两步验证,请先移除", "There is a second factor; remove it first"),
    ("factor_not_begun", "尚未开始设置身份验证器", "No authenticator is being set up"),
    ("factor_none", "没有启用两步验证", "There is no second factor"),
    ("state_other", "会员处于其他状态", "The member is in another state"),
    ("invalid", "输入有误", "Some fields are not accepted"),
    ("store_full", "服务器存储空间不足，请稍后再试", "There is no room left on the server; try again later"),
    ("store_unavailable", "服务暂时不可用", "The service is not available for the moment"),
    ("internal", "内部错误", "Something went wrong on our side"),
];

/// The text of a code; `None` for a code that has none.
pub fn text(code: &str, language: Language) -> Option<&'static str> {
    let (_, zh, en) = TEXTS.iter().find(|(known, _, _)| *known == code)?;
    Some(match language {
        Language::ZhCn => zh,
        Language::En => en,
    })
}

/// The text of a code about passwords, with the least length in it.
pub fn text_with_min(code: &str, language: Language, min: usize) -> Option<String> {
    Some(text(code, language)?.replace("{min}", &min.to_string()))
}
