import Hummingbird

/// `GET /dashboard`: the document. It holds nothing of the deployment; what it shows it asks for with the operator's key.
enum DashboardPage {
    static let response = PageResponse.make(document, script: DashboardScript.text, style: DashboardStyle.text)

    private static let document = #"""
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
        <meta name="color-scheme" content="light dark">
        <title>Sluice dashboard</title>
        <link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' fill='%230e7c86'/%3E%3Cpath d='M7 23V13m6 10V9m6 14v-7m6 7V11' stroke='%23fff' stroke-width='3' fill='none' stroke-linecap='round'/%3E%3C/svg%3E">
        <style>\#(DashboardStyle.text)</style>
        </head>
        <body>
        <header>
          <h1><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8"/><path d="M7 23V13m6 10V9m6 14v-7m6 7V11"/></svg>Sluice</h1>
          <p id="status" role="status" data-state="waiting">connecting</p>
          <span id="role" hidden></span>
          <button id="forget" type="button" hidden>Leave</button>
        </header>
        <form id="gate" hidden>
          <label for="key">The operator's key</label>
          <div><input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="SLUICE_ADMIN_KEY or SLUICE_VIEWER_KEY" required><button>Enter</button></div>
          <p id="gate-error" role="alert"></p>
        </form>
        <main id="main" hidden>
          <section id="figures" aria-label="Now"></section>
          <section id="charts" aria-label="Charts"></section>
          <section class="card" aria-labelledby="queues-title">
            <h2 id="queues-title">Queues</h2>
            <table><thead><tr><th>Class</th><th class="n">Waiting</th><th class="n">Running</th><th class="n">Oldest</th><th>State</th><th></th></tr></thead><tbody id="queues"></tbody></table>
          </section>
          <section class="card" aria-labelledby="latencies-title">
            <h2 id="latencies-title">Latencies <small>last minute</small></h2>
            <table><thead><tr><th></th><th class="n">p50</th><th class="n more">p90</th><th class="n">p99</th><th class="n">Count</th></tr></thead><tbody id="latencies"></tbody></table>
          </section>
          <section class="card wide" aria-labelledby="workers-title">
            <h2 id="workers-title">Workers</h2>
            <table><thead><tr><th>Name</th><th>Slots</th><th class="n">Tokens/s</th><th class="n more">Jobs/s</th><th>State</th><th class="n more">Up</th><th></th></tr></thead><tbody id="workers"></tbody></table>
          </section>
          <section class="card wide" aria-labelledby="jobs-title">
            <h2 id="jobs-title">Slowest jobs</h2>
            <table><thead><tr><th>Job</th><th class="n">Age</th><th>Phase</th><th class="n more">Tokens</th><th class="more">Model</th><th class="more">Worker</th><th></th></tr></thead><tbody id="jobs"></tbody></table>
          </section>
          <section class="card" aria-labelledby="search-title">
            <h2 id="search-title">Find a job</h2>
            <form id="search"><input id="job" aria-label="Job id" placeholder="p0-01J…" autocomplete="off" spellcheck="false" maxlength="200" required><button>Find</button></form>
            <div id="story" aria-live="polite"></div>
          </section>
          <section class="card" aria-labelledby="gateways-title">
            <h2 id="gateways-title">Gateways</h2>
            <table><thead><tr><th>Name</th><th class="n">Sockets</th><th class="n">Requests</th><th>State</th><th class="n more">Up</th></tr></thead><tbody id="gateways"></tbody></table>
          </section>
        </main>
        <dialog id="confirm" aria-labelledby="question"><p id="question"></p><menu><button id="no" type="button">Cancel</button><button id="yes" type="button"></button></menu></dialog>
        <p id="toast" role="alert" hidden></p>
        <script>\#(DashboardScript.text)</script>
        </body>
        </html>

        """#
}
