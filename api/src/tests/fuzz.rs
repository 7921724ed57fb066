//! The fuzz targets of the API on the stable compiler. If it fails, hostile bytes crash a server or are misread.

#[path = "../../../fuzz/smoke.rs"]
#[macro_use]
mod smoke;

#[path = "../../../fuzz/edges.rs"]
mod edges;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let sealed = kindred_members::fuzzing::seal("member cursor", &("p".to_owned(), 7));
    let cursor = crate::params::opaque(&("after", 7));
    match target {
        "password" => texts(&[
            "(@4<{[6|9!1|7+0$5+7%2'*7)",
            "$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5$5",
            "qwertyuiop[]\\asdfghjkl;'zxcvbnm,./",
            "4@8({[<369!1|70$5+%2",
            "correct horse battery staple",
            "Gru\u{308}\u{df}e 1999-12-31",
        ]),
        "identifier" => texts(&[
            "mara",
            "ＭARA",
            "张三",
            "ΑΣ",
            "İstanbul",
            "13812345678",
            "+8613812345678",
            "+49 1512 3456789",
            "(202) 555-0123",
            "tel:+49-1512-3456789;ext=3",
            "A.b+c@Example.COM",
            "a@b.c\r\nBcc: d@e.f",
        ]),
        "token" => texts(&[
            "0197f3a0-0000-7000-8000-000000000001.c2VjcmV0",
            "0197f3a0-0000-7000-8000-000000000001.s.c2VjcmV0.bWFyaw",
            &sealed,
            &format!("{sealed}="),
        ]),
        "solution" => texts(&[r#"{"token":"a.b","nonce":"12345"}"#, r#"{"nonce":"","token":""}"#]),
        "segment" => texts(&["sku-1", "a%2Fb", "%E5%BC%A0%e4%b8%89", "a+b%20c", "%", "%f", "%zz", "%ff%00"]),
        "parameters" => texts(&[
            "limit=3&q=a%20b+c",
            "as_of=2026-01-05&&q=",
            &format!("limit=50&cursor={cursor}"),
            &format!("%63ursor={cursor}&q=x"),
        ]),
        "trace" => texts(&[
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ]),
        "visitor" => texts(&[
            "10.0.0.1\n198.51.100.7, 203.0.113.9, 10.0.0.2\nzh-CN,zh;q=0.9,en;q=0.8",
            "::ffff:10.0.0.1\nfd00::1,::ffff:203.0.113.9\nde;q=NaN, en;q=-1",
            "fd00::2\n[2001:db8::1]:443, 2001:db8::1\n",
            "203.0.113.9\n10.0.0.1\n*",
        ]),
        "precondition" => texts(&["\"5f\"", "W/\"5f\"", "*", "\"a,b\", \"5f\"", "\"x\" ,\tW/\"y\"", "5f"]),
        "cookie" => texts(&[
            "a=1; __Host-kindred-refresh=m.s.x.y; b=2",
            "__Host-kindred-refresh=x\n__Host-kindred-refresh=y",
            "__host-kindred-refresh=x;;=;a",
        ]),
        "authorization" => texts(&["Bearer kd_sk_x", "bearer  a b ", "Basic YTpi", "Bearer"]),
        "body" => texts(&[
            r#"{"name":"n","count":3,"address":{"name":"a","a/b~c":true},"tags":[{"name":"t"},{"name":"u"}]}"#,
            r#"{"name":"n","tags":[{"name":"t","x`y/z":1}]}"#,
            r#"{"name":"n","name":"m"}"#,
            r#"["n",1]"#,
        ]),
        _ => panic!("no seeds for {target}"),
    }
}

#[test]
fn every_reader_of_a_request_holds_on_mutated_examples() {
    smoke::run(edges::ALL, seeds);
}
