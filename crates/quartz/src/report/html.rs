//! The frame of the report: one file, with its style inside and nothing from elsewhere.

/// Text made safe between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A whole page around `body`, which is HTML already.
pub(super) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
}

/// A section with a heading; empty where there is nothing to show.
pub(super) fn section(heading: &str, content: &str) -> String {
    if content.is_empty() {
        String::new()
    } else {
        format!("<section>\n<h2>{}</h2>\n{content}\n</section>\n", escape(heading))
    }
}

/// Figures side by side, each with what it is.
pub(super) fn tiles(tiles: &[(&str, String)]) -> String {
    let tile = |(name, value): &(&str, String)| {
        format!("<div class=\"tile\"><b>{}</b><span class=\"dim\">{}</span></div>", escape(value), escape(name))
    };
    format!("<div class=\"tiles\">{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

/// A figure with a caption.
pub(super) fn figure(content: &str, caption: &str) -> String {
    format!("<figure>{content}<figcaption>{}</figcaption></figure>", escape(caption))
}

/// A table; the cells are HTML already, and all columns but the first are aligned right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let row = |cells: String| format!("<tr>{cells}</tr>\n");
    let head = row(head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect());
    let body: String =
        rows.iter().map(|cells| row(cells.iter().map(|cell| format!("<td>{cell}</td>")).collect())).collect();
    format!("<div class=\"scroll\"><table>\n<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>")
}

/// A number with a bar behind it that shows its share of the largest.
pub(super) fn bar(text: &str, share: f64) -> String {
    format!("<span class=\"bar\" style=\"--share:{:.1}%\">{}</span>", share.clamp(0.0, 1.0) * 100.0, escape(text))
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2330;--dim:#667085;--line:#e4e7ec;--card:#fff;--page:#f5f6f8;--blue:#0072b2;--bar:rgba(0,114,178,.16)}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ee;--dim:#98a2b3;--line:#2c3340;--card:#1a1f29;--page:#11151c;--blue:#5bb4e5;--bar:rgba(91,180,229,.2)}figure svg:not(.matrix){background:#fff;border-radius:6px}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:0 0 14px}
.dim{color:var(--dim)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px;margin-top:18px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:20px}
.tile{flex:0 0 auto;min-width:118px;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.tile b{display:block;font-size:23px;white-space:nowrap;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(360px,1fr));gap:18px}
figure{margin:0}figure svg{width:100%;height:auto;display:block}figcaption{color:var(--dim);font-size:13px;margin-top:4px}
.matrix{max-width:640px;font-size:12px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{color:var(--dim);font-weight:600}
.bar{display:block;background:linear-gradient(90deg,var(--bar) var(--share),transparent var(--share));padding:0 6px;border-radius:3px}
.wrap{display:inline-block;min-width:190px;white-space:normal;text-align:left}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(128px,1fr));gap:14px}
.sample{font-size:12.5px;line-height:1.35}.sample img{width:100%;aspect-ratio:1;image-rendering:pixelated;border-radius:6px;border:3px solid var(--blue);display:block;margin-bottom:4px}
.sample.wrong img{border-color:#d55e00}.sample.wrong b{color:#d55e00}
pre{overflow-x:auto;background:var(--page);border:1px solid var(--line);border-radius:8px;padding:12px;font:13px/1.45 ui-monospace,'DejaVu Sans Mono',monospace;margin:0}
h3{font-size:15px;margin:18px 0 8px}h3:first-of-type{margin-top:0}
.map{display:inline-block;width:116px;text-align:left;white-space:normal;font-size:12px;line-height:1.3;vertical-align:top;margin:2px 6px 6px 0}.map img{width:100%;image-rendering:pixelated;display:block;border-radius:4px;margin-bottom:3px}td:has(.map){vertical-align:top}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:14px}
.keys{color:var(--dim);font-size:13px;display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:6px}.key::before{content:'';display:inline-block;width:22px;border-top:3px var(--line-style,solid) var(--key);margin-right:6px;vertical-align:middle}
.charts+.scroll{margin-top:18px}section>p:last-child{margin-bottom:0}
details summary{cursor:pointer;color:var(--dim)}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere() {
        let page = page("<x>", &section("a & b", &table(&["n"], &[vec![escape("<script>")]])));
        assert!(
            page.contains("<title>&lt;x&gt;</title>") && page.contains("a &amp; b") && page.contains("&lt;script&gt;")
        );
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));
    }
}
