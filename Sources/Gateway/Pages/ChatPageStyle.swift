/// How the chat page looks: light or dark as the visitor's system is, from a telephone's width upwards.
enum ChatPageStyle {
    static let text = #"""
        :root {
          --paper: #fbfbfa; --raised: #ffffff; --ink: #1d2327; --quiet: #667177; --line: #e2e5e6;
          --accent: #0e7c86; --accent-ink: #ffffff; --mine: #e4f1f2; --stopped: #9a6200; --stopped-paper: #fdf3df;
          --wrong: #b3261e; --wrong-paper: #fbe9e7; --good: #2e9b59;
          font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --paper: #14181a; --raised: #1d2326; --ink: #e6eaeb; --quiet: #93a0a6; --line: #2d363a;
            --accent: #35b3bf; --accent-ink: #06282b; --mine: #17363a; --stopped: #e8b45a; --stopped-paper: #33270f;
            --wrong: #f2867d; --wrong-paper: #3a1c1a; --good: #55c583;
          }
        }
        * { box-sizing: border-box; margin: 0; -webkit-tap-highlight-color: transparent; }
        [hidden] { display: none !important; }
        html, body { height: 100%; }
        body { display: flex; flex-direction: column; height: 100dvh; background: var(--paper); color: var(--ink); }
        button, input, textarea { font: inherit; color: inherit; }
        button { cursor: pointer; }
        :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
        svg { fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }

        header { display: flex; align-items: center; gap: .75rem; padding: .6rem max(1rem, env(safe-area-inset-left)); border-bottom: 1px solid var(--line); }
        h1 { display: flex; align-items: center; gap: .5rem; font-size: 1.05rem; font-weight: 650; letter-spacing: -.01em; }
        h1 svg { width: 1.6rem; height: 1.6rem; stroke: var(--accent-ink); }
        h1 rect { fill: var(--accent); stroke: none; }
        #status { flex: 1; display: flex; align-items: center; gap: .45rem; min-width: 0; color: var(--quiet); font-size: .82rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
        #status::before { content: ""; flex: none; width: .5rem; height: .5rem; border-radius: 50%; background: var(--stopped); }
        #status[data-state="ready"]::before { background: var(--good); }
        #status[data-state="broken"]::before { background: var(--wrong); }
        #settings { position: relative; }
        summary { list-style: none; display: grid; place-items: center; width: 2.5rem; height: 2.5rem; border-radius: .7rem; cursor: pointer; }
        summary::-webkit-details-marker { display: none; }
        summary:hover { background: var(--line); }
        summary svg { width: 1.3rem; height: 1.3rem; }
        #settings > div { position: absolute; z-index: 2; right: 0; top: 3rem; width: min(19rem, 88vw); display: grid; gap: .8rem; padding: 1rem; background: var(--raised); border: 1px solid var(--line); border-radius: 1rem; box-shadow: 0 12px 32px rgb(0 0 0 / .18); font-size: .92rem; }
        #settings label { display: grid; gap: .25rem; color: var(--quiet); }
        #settings .switch { display: flex; align-items: center; gap: .6rem; color: var(--ink); }
        #settings input[type="checkbox"] { width: 1.1rem; height: 1.1rem; accent-color: var(--accent); }
        #settings input:not([type]), #gate input { width: 100%; padding: .55rem .7rem; color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; }
        #settings button { padding: .5rem; background: none; border: 1px solid var(--line); border-radius: .6rem; }
        #settings button:hover { border-color: var(--accent); }

        main { flex: 1; overflow-y: auto; scrollbar-gutter: stable both-edges; overscroll-behavior: contain; padding: 1rem max(1rem, env(safe-area-inset-left)); }
        #welcome, #turns, #gate { width: 100%; max-width: 46rem; margin: 0 auto; }
        #welcome { padding-top: 12vh; text-align: center; }
        #welcome h2 { text-wrap: balance; line-height: 1.25; font-size: 1.6rem; letter-spacing: -.02em; font-weight: 600; }
        #welcome p { max-width: 32rem; text-wrap: balance; margin: .6rem auto 1.6rem; color: var(--quiet); }
        kbd { padding: .05rem .4rem; font: .82em ui-monospace, monospace; border: 1px solid var(--line); border-bottom-width: 2px; border-radius: .35rem; }
        @media (hover: none) { .keyboard { display: none; } }
        #suggestions { display: flex; flex-wrap: wrap; justify-content: center; gap: .6rem; }
        #suggestions button { padding: .55rem .95rem; background: var(--raised); border: 1px solid var(--line); border-radius: 2rem; font-size: .92rem; }
        #suggestions button:hover { border-color: var(--accent); color: var(--accent); }

        #turns { display: grid; gap: 1.4rem; padding: 0 0 1rem; list-style: none; }
        #turns li { display: grid; gap: .8rem; }
        .question { justify-self: end; max-width: 85%; padding: .6rem .95rem; background: var(--mine); border-radius: 1.1rem 1.1rem .3rem 1.1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
        .answer { white-space: pre-wrap; overflow-wrap: anywhere; }
        .running .answer::after { content: ""; display: inline-block; width: .5rem; height: 1.05rem; margin-left: .15rem; vertical-align: -.15rem; border-radius: .15rem; background: var(--accent); animation: breathe 1s ease-in-out infinite; }
        @keyframes breathe { 50% { opacity: .15; } }
        .thinking { color: var(--quiet); font-size: .9rem; border-left: 2px solid var(--line); padding-left: .8rem; }
        .thinking summary { display: inline; width: auto; height: auto; padding: 0; }
        .thinking summary:hover { background: none; color: var(--ink); }
        .thinking summary::before { content: "▸ "; }
        .thinking[open] summary::before { content: "▾ "; }
        .thinking p { white-space: pre-wrap; overflow-wrap: anywhere; }
        .call { padding: .55rem .8rem; font: .85rem/1.5 ui-monospace, monospace; background: var(--raised); border: 1px solid var(--line); border-radius: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
        .receipt { justify-self: start; display: flex; flex-wrap: wrap; gap: .15rem .9rem; max-width: 100%; padding: .4rem .8rem; font-size: .82rem; color: var(--quiet); border-radius: .7rem; }
        .receipt:empty { display: none; }
        .receipt.plain { padding: 0; }
        .receipt.stopped { color: var(--stopped); background: var(--stopped-paper); }
        .receipt.wrong { color: var(--wrong); background: var(--wrong-paper); }
        .receipt b { font-weight: 600; }

        #gate { padding: 0 1rem 1rem; display: grid; gap: .5rem; }
        #gate div { display: flex; gap: .5rem; }
        #gate button { padding: 0 1.2rem; color: var(--accent-ink); background: var(--accent); border: 0; border-radius: .6rem; }
        #gate-error { color: var(--wrong); font-size: .88rem; min-height: 1.4em; }

        #composer { display: flex; align-items: flex-end; gap: .5rem; width: calc(100% - 2rem); max-width: 46rem; margin: .3rem auto max(.9rem, env(safe-area-inset-bottom)); padding: .4rem; background: var(--raised); border: 1px solid var(--line); border-radius: 1.4rem; box-shadow: 0 4px 18px rgb(0 0 0 / .06); }
        #composer:focus-within { border-color: var(--accent); }
        #text { flex: 1; max-height: 35dvh; padding: .45rem .7rem; background: none; border: 0; outline: 0; resize: none; line-height: 1.5; }
        #send { flex: none; display: grid; place-items: center; width: 2.5rem; height: 2.5rem; color: var(--accent-ink); background: var(--accent); border: 0; border-radius: 50%; transition: opacity .15s; }
        #send svg { width: 1.3rem; height: 1.3rem; }
        #send .square { display: none; fill: currentColor; stroke: none; }
        #send.stop { background: var(--ink); color: var(--paper); }
        #send.stop .arrow { display: none; }
        #send.stop .square { display: inline; }
        #send:disabled { opacity: .35; cursor: default; }
        @media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
        """#
}
