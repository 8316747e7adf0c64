"""The style sheet of report.html: screen, phone and paper, light and dark."""

from calib_jax.reports.figures.drawing import theme_css

_COLOURS = f"""
:root {{ color-scheme: light dark;
  --page: #fff; --text: #1d1f23; --grey: #5a616b; --line: #dcdfe4; --soft: #f5f6f8;
  --shade: #8a93a0;
  --accent: #08519c; --better: #00695c; --worse: #b23c00;
  {theme_css(dark=False)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{
  --page: #15171b; --text: #e4e6ea; --grey: #a3aab5; --line: #33383f; --soft: #1f2228;
  --shade: #7d8794;
  --accent: #7cb9f0; --better: #4fd1b5; --worse: #ff9a66;
  {theme_css(dark=True)} }} }}
"""

_LAYOUT = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--text); background: var(--page);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
             "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
p, ul, dl { max-width: 46rem; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em;
     overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: .9rem;
     border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.7rem 0 .5rem; overflow-wrap: anywhere; }
.kicker { color: var(--grey); margin: 0 0 1.4rem; overflow-wrap: anywhere; }
nav { font-size: .92rem; margin: 1.2rem 0 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: 0;
         padding: 0; max-width: none; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.note, figcaption { color: var(--grey); font-size: .9rem; max-width: 52rem; }
.note { margin: .35rem 0; }
.cards { display: flex; flex-wrap: wrap; gap: .9rem; margin: 1.2rem 0; padding: 0;
         max-width: none; list-style: none; }
.cards li { flex: 1 1 17rem; min-width: 0; background: var(--soft); padding: .8rem 1.1rem;
            border-left: 4px solid var(--accent); border-radius: 0 6px 6px 0; }
.cards strong { display: block; font-size: 1.45rem; line-height: 1.3;
                font-variant-numeric: tabular-nums; }
.cards span { color: var(--grey); font-size: .92rem; overflow-wrap: anywhere; }
"""

_TABLES = """
/* A shadow at the right where a table continues; at the table's end the first layer hides it. */
.scroll { overflow-x: auto; margin: .6rem 0; background:
  linear-gradient(to left, var(--page) 50%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1.1rem 100% no-repeat scroll; }
.tall { max-height: 36rem; overflow-y: auto; border-bottom: 1px solid var(--line); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums;
        font-size: .93rem; }
th, td { padding: .32rem .85rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { font-weight: 600; background: var(--page); }
thead th, thead td { border-bottom: 2px solid var(--text); vertical-align: bottom; }
.sortable thead th { white-space: normal; min-width: 4.5rem; max-width: 9rem; }
thead tr:not(:last-child) td { border-bottom: 0; }
.sortable th, .sortable td { padding-left: .5rem; padding-right: .5rem; }
/* Intervals beneath their figures, so that many columns fit. */
.stacked td small { display: block; margin: 0; }
.tall thead th { position: sticky; top: 0; z-index: 2; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
/* Sideways, the names of the rows stay in sight. */
tbody th { font-weight: 400; position: sticky; left: 0; z-index: 1; }
td small { color: var(--grey); font-size: .84em; font-weight: 400; margin-left: .25em; }
td.better { color: var(--better); font-weight: 600; }
td.worse { color: var(--worse); font-weight: 600; }
td.best { font-weight: 600; }
th.group { text-align: center; border-bottom-width: 1px; }
tr.inset > th { padding-left: 1.8rem; }
tr.inset > * { color: var(--grey); }
tr.base > * { color: var(--grey); }
th button { all: unset; cursor: pointer; font: inherit; color: var(--accent); }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th button::after { content: " \\2195"; color: var(--grey); font-weight: 400; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: inherit; }
th[aria-sort=descending] button::after { content: " \\2193"; color: inherit; }
dl.facts { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .3rem 1.4rem;
           margin: .4rem 0; font-size: .93rem; max-width: none; }
dl.facts dt { color: var(--grey); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
dl.facts dl.facts { margin: 0; font-size: 1em; }
pre { background: var(--soft); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto;
      font: .86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
            monospace; }
summary { cursor: pointer; color: var(--accent); }
ol.wrong { padding: 0; margin: .8rem 0; list-style: none; display: grid; gap: .8rem;
           grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
ol.wrong > li { background: var(--soft); border-radius: 6px; padding: .7rem 1rem; min-width: 0; }
ol.wrong p { margin: .1rem 0 .3rem; overflow-wrap: anywhere; }
ol.wrong .where { color: var(--grey); font-size: .86rem; }
ol.wrong ul { list-style: none; margin: .3rem 0 0; padding: 0; font-size: .93rem; }
ol.wrong ul li { display: flex; gap: .6rem; padding: .1rem 0; }
ol.wrong ul b { min-width: 1.2rem; }
ol.wrong ul span { flex: 1; min-width: 0; overflow-wrap: anywhere; }
ol.wrong ul em { font-style: normal; font-variant-numeric: tabular-nums; }
ol.wrong .chosen { color: var(--worse); }
ol.wrong .answer { color: var(--better); }
"""

_FIGURES = """
figure { margin: 1rem 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg text { font-family: inherit; fill: var(--f-ink); }
figure strong { display: block; font-size: .98rem; overflow-wrap: anywhere; }
figure .figures { display: block; color: var(--grey); font-size: .86rem;
                  font-variant-numeric: tabular-nums; }
.panels { display: grid; gap: .4rem 1.6rem; align-items: end;
          grid-template-columns: repeat(auto-fill, minmax(min(100%, 17.5rem), 1fr)); }
.panels > figure { margin: .4rem 0; max-width: 24rem; }
.panels.small { gap: .2rem .8rem;
                grid-template-columns: repeat(auto-fill, minmax(min(46%, 10.2rem), 1fr)); }
.panels.small strong { font-size: .9rem; text-align: center; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.2rem; list-style: none; margin: .5rem 0;
          padding: 0; max-width: none; font-size: .88rem; color: var(--text); }
.legend li { display: flex; align-items: center; gap: .45rem; overflow-wrap: anywhere; }
.legend i { flex: none; width: 1.5rem; height: .95rem; }
.legend .over { border: 1px solid var(--f-axis); background: repeating-linear-gradient(
                -45deg, var(--f-axis) 0 1px, transparent 1px 5px); }
.legend .under { border: 1px solid var(--f-ink); background: radial-gradient(
                 var(--f-ink) 1px, transparent 1.3px) 0 0 / 5px 5px; }
.legend .whisker { width: .7rem; border: solid var(--f-ink); border-width: 2px 0;
  background: linear-gradient(var(--f-ink), var(--f-ink)) center / 2px 100% no-repeat; }
.legend .line, .legend .dashed { height: 0; border-top: 2.5px solid; }
.legend .dashed { border-top-style: dashed; }
.legend .scale { width: auto; display: flex; height: .95rem; }
.legend .scale i { width: .8rem; height: 100%; }
"""

_PHONE = """
@media (max-width: 640px) {
  main { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.45rem; }
  .cards strong { font-size: 1.2rem; }
  table { font-size: .86rem; }
  th, td { padding: .28rem .25rem; }
  tbody th { white-space: normal; min-width: 4.6rem; }
  tr.inset > th { padding-left: .9rem; }
  td small { display: block; margin: 0; font-size: .8em; }
  .wide { overflow-x: auto; }
  .wide svg { min-width: 860px; }
  .sortable tbody th { min-width: 7rem; }
  .panels > figure { max-width: none; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin: 0 0 .5rem; }
  dl.facts dl.facts { padding-left: .8rem; border-left: 2px solid var(--line); }
}
"""

_PAPER = """
@media print {
  @page { margin: 14mm; }
  :root { color-scheme: light; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3, .legend { break-after: avoid; }
  figure, tr, .cards li, ol.wrong > li { break-inside: avoid; }
  figure svg { max-height: 172mm; }
  .panels { grid-template-columns: repeat(3, 1fr); }
  ol.wrong { grid-template-columns: 1fr 1fr; font-size: 8.5pt; }
  .panels.small { grid-template-columns: repeat(6, 1fr); }
  h2 { margin-top: 1.4rem; }
  .scroll, .tall { overflow: visible; max-height: none; }
  table { font-size: 8.5pt; }
  th, td { padding: .15rem .35rem; white-space: normal; position: static !important; }
  td small { display: block; margin: 0; }
  /* Too many columns for an upright page. */
  @page wide { size: landscape; margin: 12mm; }
  section:has(.sortable) { page: wide; }
  .sortable { font-size: 6.5pt; }
  .sortable thead th { min-width: 0; }
  .sortable tbody th { white-space: nowrap; }
  th button::after { content: none; }
  .cards li, pre { border: 1px solid var(--line); }
  pre { white-space: pre-wrap; }
  details::details-content { content-visibility: visible; display: block; }
}
"""

CSS = (_COLOURS + _LAYOUT + _TABLES + _FIGURES + _PHONE + _PAPER).strip()
