"""Style sheet of the HTML report; light or dark as the reader's system is."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1d2327; --soft: #5d676e;
  --line: #e1e4e6; --good: #00705a; --fine: #2a63b8; --bad: #b8431f; --wash: #b8431f14; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --card: #1c2226; --ink: #e8ecee;
  --soft: #9eaab2; --line: #30383e; --good: #43c9a5; --fine: #7fb0ff; --bad: #ff9470;
  --wash: #ff947014; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 78rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em; line-height: 1.2 }
h2 { margin: 0 0 .4rem; font-size: 1.3rem; letter-spacing: -.01em }
header p { margin: .4rem 0 1rem; color: var(--soft) }
nav a { display: inline-block; margin: 0 .4rem .4rem 0; padding: .15rem .7rem;
  border: 1px solid var(--line); border-radius: 99px; background: var(--card); color: var(--fine);
  text-decoration: none }
nav a:hover, nav a:focus-visible { border-color: var(--fine) }
section { margin: 1.5rem 0; padding: 1.5rem; border: 1px solid var(--line); border-radius: 14px;
  background: var(--card) }
code { overflow-wrap: anywhere; font: .88em ui-monospace, "SF Mono", Menlo, Consolas, monospace }
.lead { margin: 0 0 1.1rem }
.note { color: var(--soft); font-size: .88rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
  margin: 0 0 1.4rem }
.tiles div { display: flex; flex-direction: column-reverse; justify-content: flex-end;
  padding: .8rem 1rem; border-radius: 10px; background: var(--paper) }
.tiles dt { color: var(--soft); font-size: .85rem; line-height: 1.35 }
.tiles dd { margin: 0; font-size: 1.5rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums }
figure { margin: 0 0 1.4rem }
figcaption { display: flex; flex-wrap: wrap; gap: 1.2rem; color: var(--soft); font-size: .88rem }
figcaption b { display: inline-block; width: 1.1em }
svg { display: block; width: 100%; min-width: 38rem; height: auto;
  font: 12px system-ui, sans-serif }
svg text { fill: var(--soft) }
svg .axis { font-weight: 600 }
svg .number { font-size: 11px; font-weight: 600; fill: currentColor }
svg .grid { stroke: var(--line) }
svg .limit { stroke: var(--bad); stroke-dasharray: 4 4; opacity: .7 }
svg .beyond { fill: var(--wash) }
svg g:hover { filter: brightness(1.25) }
svg circle, svg polygon { fill: currentColor; stroke: var(--card); stroke-width: 1.5 }
svg path { fill: none; stroke: currentColor; stroke-width: 2.2; stroke-linecap: round }
.chosen { color: var(--good) } .qualified { color: var(--fine) }
.rejected, .failed { color: var(--bad) }
.scroll { overflow-x: auto; margin: 0 0 1rem }
table { width: 100%; border-collapse: collapse; font-size: .88rem }
caption { padding: 0 0 .5rem; color: var(--soft); font-size: .88rem; text-align: left }
th, td { padding: .42rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; color: var(--ink) }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap }
tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 9rem }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
td.status { color: inherit; font-weight: 600 }
td.why { min-width: 13rem; color: var(--soft) }
tr.chosen > * { background: color-mix(in srgb, var(--good) 9%, transparent) }
details { margin: .8rem 0 } summary { cursor: pointer }
.words dt { font-weight: 650 } .words dd { margin: 0 0 .7rem; color: var(--soft) }
@media print { body { background: #fff } section { break-inside: avoid } }
"""
