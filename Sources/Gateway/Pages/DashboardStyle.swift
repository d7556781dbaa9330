/// How the dashboard looks: light or dark as the operator's system is, from a telephone's width upwards.
enum DashboardStyle {
    static let text = #"""
        :root {
          --paper: #f4f6f6; --raised: #ffffff; --ink: #1d2327; --quiet: #667177; --line: #e2e5e6;
          --accent: #0e7c86; --accent-ink: #ffffff; --wrong: #b3261e; --wrong-paper: #fbe9e7; --warn: #9a6200; --warn-paper: #fdf3df; --good: #2e9b59;
          --one: #0e7c86; --two: #c7761a; --three: #7a5cc4;
          font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --paper: #14181a; --raised: #1d2326; --ink: #e6eaeb; --quiet: #93a0a6; --line: #2d363a;
            --accent: #35b3bf; --accent-ink: #06282b; --wrong: #f2867d; --wrong-paper: #3a1c1a; --warn: #e8b45a; --warn-paper: #33270f; --good: #55c583;
            --one: #35b3bf; --two: #e8a04a; --three: #a98ff0;
          }
        }
        * { box-sizing: border-box; margin: 0; }
        [hidden] { display: none !important; }
        body { background: var(--paper); color: var(--ink); }
        button, input { font: inherit; color: inherit; }
        button { cursor: pointer; padding: .25rem .7rem; min-height: 2rem; background: none; border: 1px solid var(--line); border-radius: .5rem; }
        button:hover { border-color: var(--accent); }
        button.danger { color: var(--wrong); }
        button.danger:hover { border-color: var(--wrong); background: var(--wrong-paper); }
        :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

        header { position: sticky; top: 0; z-index: 1; display: flex; align-items: center; gap: .75rem; padding: .5rem 1rem; background: var(--raised); border-bottom: 1px solid var(--line); }
        h1 { display: flex; align-items: center; gap: .5rem; font-size: 1.05rem; font-weight: 650; }
        h1 svg { width: 1.6rem; height: 1.6rem; fill: none; stroke: var(--accent-ink); stroke-width: 3; stroke-linecap: round; }
        h1 rect { fill: var(--accent); stroke: none; }
        #status { flex: 1; display: flex; align-items: center; gap: .45rem; min-width: 0; color: var(--quiet); font-size: .85rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
        #status::before { content: ""; flex: none; width: .55rem; height: .55rem; border-radius: 50%; background: var(--warn); }
        #status[data-state="live"]::before { background: var(--good); }
        #status[data-state="broken"] { color: var(--wrong); }
        #status[data-state="broken"]::before { background: var(--wrong); }
        #role { padding: .1rem .55rem; color: var(--warn); background: var(--warn-paper); border-radius: 1rem; font-size: .8rem; white-space: nowrap; }

        #gate { max-width: 30rem; margin: 18vh auto 0; padding: 0 1rem; display: grid; gap: .5rem; }
        #gate div, #search { display: flex; gap: .5rem; }
        input { flex: 1; min-width: 0; padding: .45rem .65rem; background: var(--paper); border: 1px solid var(--line); border-radius: .5rem; }
        #gate input { background: var(--raised); }
        #gate button, #search button { color: var(--accent-ink); background: var(--accent); border-color: var(--accent); }
        #gate-error { color: var(--wrong); min-height: 1.5em; }

        main { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .8rem; max-width: 84rem; margin: 0 auto; padding: .8rem; }
        #figures, #charts, .wide { grid-column: 1 / -1; }
        #figures { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .8rem; }
        .card, .figure, .chart { padding: .7rem .9rem; background: var(--raised); border: 1px solid var(--line); border-radius: .8rem; min-width: 0; }
        .figure dt { color: var(--quiet); font-size: .8rem; }
        .figure dd { font-size: 1.5rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
        .figure dd small { font-size: .8rem; font-weight: 400; color: var(--quiet); }
        .figure[data-state="warn"] dd { color: var(--warn); }
        .figure[data-state="wrong"] dd { color: var(--wrong); }
        #charts { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .8rem; }
        .chart h3 { display: flex; align-items: baseline; gap: .5rem; font-size: .85rem; font-weight: 600; }
        .chart h3 { white-space: nowrap; overflow: hidden; }
        .reach { margin-left: auto; }
        .chart svg { display: block; width: 100%; height: 7rem; margin: .3rem 0; overflow: visible; }
        .chart .grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
        .chart text { fill: var(--quiet); font-size: 10px; }
        .chart .series { fill: none; stroke-width: 1.8; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
        .s0 { stroke: var(--one); color: var(--one); } .s1 { stroke: var(--two); color: var(--two); } .s2 { stroke: var(--three); color: var(--three); }
        .s3 { stroke: var(--wrong); color: var(--wrong); }
        .chart .area { stroke: none; fill: currentColor; fill-opacity: .75; }
        .legend { display: flex; flex-wrap: wrap; gap: .1rem .8rem; padding: 0; list-style: none; color: var(--quiet); font-size: .78rem; }
        .legend li::before { content: ""; display: inline-block; width: .7rem; height: .2rem; margin-right: .35rem; vertical-align: middle; border-radius: 1px; background: var(--swatch); }
        .legend .s0 { --swatch: var(--one); } .legend .s1 { --swatch: var(--two); } .legend .s2 { --swatch: var(--three); } .legend .s3 { --swatch: var(--wrong); }
        .legend li { color: var(--quiet); }
        .legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }

        h2 { font-size: .95rem; font-weight: 650; margin-bottom: .3rem; }
        h2 small { font-weight: 400; color: var(--quiet); }
        table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
        th { text-align: left; font-size: .78rem; font-weight: 500; color: var(--quiet); }
        th, td { padding: .2rem .5rem .2rem 0; white-space: nowrap; }
        td { border-top: 1px solid var(--line); height: 2.5rem; }
        .n { text-align: right; }
        .n + :not(.n) { padding-left: .9rem; }
        td:last-child { text-align: right; padding-right: 0; }
        td.name { max-width: 0; width: 40%; overflow: hidden; text-overflow: ellipsis; }
        td.name, td code { font-family: ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; font-size: .85rem; }
        #workers td.name, #gateways td.name { width: 30%; }
        td.name button { all: unset; cursor: pointer; color: var(--accent); }
        td.name button:focus-visible { outline: 2px solid var(--accent); }
        .empty, td.empty:last-child { color: var(--quiet); text-align: left; }
        .chart .empty { font-weight: 400; }
        .tag { padding: .05rem .5rem; border-radius: 1rem; font-size: .8rem; color: var(--good); border: 1px solid currentColor; }
        .tag[data-state="warn"] { color: var(--warn); }
        .tag[data-state="wrong"] { color: var(--wrong); }
        progress { width: 5rem; height: .5rem; margin-left: .5rem; vertical-align: middle; accent-color: var(--accent); }

        #story { display: grid; gap: .6rem; margin-top: .6rem; }
        #story dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem .9rem; font-size: .88rem; }
        #story dt { color: var(--quiet); }
        #story dd, #story ol { overflow-wrap: anywhere; }
        #story ol { padding-left: 1.1rem; font-size: .85rem; }
        #story li span { color: var(--quiet); }

        dialog { margin: auto; width: min(26rem, 92vw); padding: 1.2rem; color: var(--ink); background: var(--raised); border: 1px solid var(--line); border-radius: 1rem; overflow-wrap: anywhere; }
        dialog::backdrop { background: rgb(0 0 0 / .4); }
        dialog menu { display: flex; justify-content: flex-end; gap: .6rem; margin-top: 1.2rem; padding: 0; }
        #yes { color: #fff; background: #b3261e; border-color: #b3261e; }
        #toast { position: fixed; left: 50%; bottom: 1.2rem; transform: translateX(-50%); max-width: 92vw; padding: .6rem 1rem; color: var(--paper); background: var(--ink); border-radius: .7rem; overflow-wrap: anywhere; }

        @media (max-width: 60rem) {
          #charts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
          #figures { grid-template-columns: repeat(3, minmax(0, 1fr)); }
        }
        @media (max-width: 42rem) {
          main { grid-template-columns: minmax(0, 1fr); padding: .6rem; gap: .6rem; }
          #charts { gap: .6rem; }
          .chart svg { height: 4.5rem; }
          .reach { display: none; }
          #figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem; }
          .card, .figure, .chart { padding: .6rem .7rem; }
          .more { display: none; }
          progress { display: none; }
          button { min-height: 2.5rem; }
          td { height: 3rem; }
          table { font-size: .9rem; }
          th, td { padding-right: .35rem; }
          #status { font-size: .78rem; line-height: 1.2; white-space: normal; }
          .tag { padding: 0 .35rem; }
          input { font-size: 16px; }
        }
        """#
}
