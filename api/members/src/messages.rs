//! Messages for people by stable code, in zh-CN and en. R15 fixes the Chinese wording of some.

use kindred_config::members::Language;

/// (code, zh-CN, en). `{min}` is the minimum password length.
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
    ("password_long", "密码过长（最多1024字节）", "The password is too long (at most 1024 bytes)"),
    (
        "password_weak",
        "密码过于简单，请使用更长或更复杂的密码",
        "The password is too easy to guess; make it longer or less regular",
    ),
    (
        "password_breached",
        "该密码太常见或已泄露",
        "This password is common, leaked, or derived from your name or that of the shop",
    ),
    ("agreement_stale", "请阅读并同意当前版本的用户协议", "Please read and accept the current user agreement"),
    ("language_unknown", "不支持该语言", "This language is not available"),
    ("address_invalid", "地址格式不正确", "The address is not valid"),
    ("addresses_many", "地址数量过多", "Too many addresses"),
    ("invite_unknown", "邀请码无效", "Unknown invite code"),
    ("role_unknown", "角色不存在", "Unknown role"),
    ("role_invalid", "角色无效", "The role is not valid"),
    ("query_short", "搜索内容过短", "The search text is too short"),
    ("limit_invalid", "数量必须在1到200之间", "The limit must be 1 to 200"),
    ("cursor_invalid", "游标无效", "The cursor is not valid"),
    ("identifier_taken", "用户名或手机号码或邮箱已经存在", "The username, phone or e-mail is taken"),
    ("username_taken", "用户名已经存在", "The username is taken"),
    ("registered", "注册成功", "Registered"),
    (
        "registration_accepted",
        "如果该邮箱尚未注册，您将收到一封邮件",
        "If the address is not registered yet, you will receive an e-mail",
    ),
    ("unauthenticated", "用户名或密码错误", "Wrong account or password"),
    ("reauthentication_failed", "当前密码错误", "The current password is wrong"),
    ("challenge_failed", "验证未通过，请重试", "The challenge failed; please try again"),
    ("code_wrong", "验证码错误或已过期", "The code is wrong or has expired"),
    ("token_gone", "链接已使用或已过期", "The link was already used or has expired"),
    ("throttled", "尝试次数过多，请稍后再试", "Too many attempts; please try again later"),
    ("busy", "系统繁忙，请稍后再试", "The server is busy; please try again"),
    ("insufficient_scope", "没有权限", "You do not have the required permission"),
    ("not_found", "未找到", "Not found"),
    ("changed", "内容已被修改，请刷新后重试", "It has been changed since; reload it"),
    ("refused", "当前状态不允许此操作", "Not allowed in the current state"),
    ("email_verified_already", "邮箱已验证", "The e-mail address is already verified"),
    ("account_changing", "账户正在更新，请稍后再试", "The account is being changed; please try again"),
    ("factor_there", "已启用两步验证，请先关闭", "A second factor is already set up; remove it first"),
    ("factor_not_begun", "尚未开始设置身份验证器", "No authenticator set-up is in progress"),
    ("factor_none", "未启用两步验证", "No second factor is set up"),
    ("state_other", "会员当前状态不允许此操作", "Not possible in the current state of the member"),
    ("invalid", "输入有误", "Some fields are not valid"),
    ("store_full", "服务器存储空间不足，请稍后再试", "The server is out of storage; please try again later"),
    ("store_unavailable", "服务暂时不可用，请稍后再试", "The service is temporarily unavailable"),
    ("internal", "服务器内部错误", "Internal error"),
];

/// The text of a code, if it has one.
pub fn text(code: &str, language: Language) -> Option<&'static str> {
    let (_, zh, en) = TEXTS.iter().find(|(known, _, _)| *known == code)?;
    Some(match language {
        Language::ZhCn => zh,
        Language::En => en,
    })
}

/// The text of a code with `{min}` filled in.
pub fn text_with_min(code: &str, language: Language, min: usize) -> Option<String> {
    Some(text(code, language)?.replace("{min}", &min.to_string()))
}
