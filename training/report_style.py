"""The HTML page of a report: one calm stylesheet for light and dark, for screens and for paper."""

from __future__ import annotations

from string import Template

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --page: #fbfaf7; --ink: #24292f; --soft: #68707a; --line: #e3e0d8; --card: #ffffff; --accent: #2f6f8f;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #16191d; --ink: #dfe3e8; --soft: #939ca7; --line: #2c323a; --card: #1d2126; --accent: #7cc0dd; }
  img { filter: invert(0.886) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3.5rem 1.5rem 6rem; max-width: 66rem; background: var(--page); color: var(--ink);
  font: 1.02rem/1.6 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 3rem 0 0.75rem; padding-top: 0.5rem; }
p, ul { max-width: 46rem; }
li { margin: 0.35rem 0; }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding-bottom: 1rem; border-bottom: 1px solid var(--line); }
nav a { color: var(--accent); text-decoration: none; font-size: 0.95rem; }
nav a:hover { text-decoration: underline; }
code {
  font: 0.9em ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  padding: 0.1em 0.35em; border-radius: 4px; background: var(--line);
}
.wide { overflow-x: auto; margin: 1.25rem 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0.9rem 1rem 0.3rem; font-weight: 600; }
th, td { padding: 0.45rem 1rem; text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
tbody tr + tr td { border-top: 1px solid var(--line); }
tbody tr:hover { background: color-mix(in srgb, var(--accent) 7%, transparent); }
.n { text-align: right; }
figure { margin: 1.5rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--soft); font-size: 0.9rem; text-align: center; margin-top: 0.75rem; }
@media print { body { padding: 0; max-width: none; } nav { display: none; } figure, .wide { break-inside: avoid; } }
</style>
</head>
<body>
<h1>$title</h1>
<nav>$links</nav>
$body
</body>
</html>
""")
