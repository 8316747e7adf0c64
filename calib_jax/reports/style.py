"""The style sheet of report.html: screen, phone and paper."""

CSS = """
:root { --ink: #1d1f23; --grey: #5f6670; --line: #dcdfe4; --soft: #f5f6f8; --blue: #08519c;
        --better: #00695c; --worse: #b23c00; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
             "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
p, ul, dl { max-width: 46rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: .9rem;
     border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.7rem 0 .5rem; }
.kicker { color: var(--grey); margin: 0 0 1.4rem; }
.cards { display: flex; flex-wrap: wrap; gap: .9rem; margin: 1.2rem 0; padding: 0;
         max-width: none; list-style: none; }
.cards li { flex: 1 1 17rem; background: var(--soft); border-left: 4px solid var(--blue);
            border-radius: 0 6px 6px 0; padding: .8rem 1.1rem; }
.cards strong { display: block; font-size: 1.45rem; line-height: 1.3; white-space: nowrap;
                font-variant-numeric: tabular-nums; }
.cards span { color: var(--grey); font-size: .92rem; }
.note, figcaption { color: var(--grey); font-size: .9rem; max-width: 52rem; }
.note { margin: .35rem 0; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .32rem .85rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 400; }
td small { color: var(--grey); font-size: .84em; font-weight: 400; margin-left: .25em; }
td.better { color: var(--better); font-weight: 600; }
td.worse { color: var(--worse); font-weight: 600; }
th.group { text-align: center; border-bottom-width: 1px; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: 100%; height: auto; }
dl.facts { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .3rem 1.4rem;
           margin: .4rem 0; font-size: .93rem; max-width: none; }
dl.facts dt { color: var(--grey); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
dl.facts dl.facts { margin: 0; font-size: 1em; }
pre { background: var(--soft); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto;
      font: .86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
            monospace; }
summary { cursor: pointer; color: var(--blue); }
@media (max-width: 640px) {
  main { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.45rem; }
  .cards strong { font-size: 1.2rem; }
  table { font-size: .86rem; }
  th, td { padding: .28rem .4rem; }
  tbody th { white-space: normal; }
  td small { display: block; margin: 0; }
  figure { overflow-x: auto; }
  figure img { min-width: 560px; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin: 0 0 .5rem; }
  dl.facts dl.facts { padding-left: .8rem; border-left: 2px solid var(--line); }
}
@media print {
  @page { margin: 14mm; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  figure, table, .cards li { break-inside: avoid; }
  /* Low enough to share the first page with the title. */
  figure img { width: auto; max-width: 100%; max-height: 172mm; margin: 0 auto; }
  h2 { margin-top: 1.4rem; }
  .scroll { overflow: visible; }
  .cards li, pre { border: 1px solid var(--line); }
}
""".strip()
