"""Drives the dashboard in a headless Chromium.

Arguments: chromium, the page's URL, the administrator's key, the viewer's key, a folder for the profile and the screenshots, and the id of
the only running job.
"""

import sys

from browser import Browser

chromium, url, admin, viewer, folder, job = sys.argv[1:]


class DashboardBrowser(Browser):
    def sign_in(self, key):
        self.wait_for("!document.getElementById('sign-in').hidden")
        self.type("#key", key)
        self.press("Enter", 13, "\r")

    def answer_dialog(self, button):
        self.wait_for("document.getElementById('confirm').open")
        self.click(button)
        self.wait_for("!document.getElementById('confirm').open")

    def wait_for_fact(self, value):
        """A value among the details of the job that is shown."""
        self.wait_for(f"[...document.querySelectorAll('#job-details dd')].some(fact => fact.textContent === '{value}')")


with DashboardBrowser(chromium, folder) as page:
    page.navigate(url)
    page.sign_in("not-a-key-0123456789")
    page.wait_for("document.getElementById('sign-in-error').textContent.includes('not valid')")
    page.errors.clear()  # The browser logs each 401 as an error.

    # A viewer has no buttons that act.
    page.sign_in(viewer)
    page.wait_for("!document.getElementById('main').hidden && document.querySelector('#workers .name')?.textContent === 'w1'")
    assert page.evaluate("!document.getElementById('role').hidden")
    assert page.evaluate(
        "[...document.querySelectorAll('#queues button, #workers button, #jobs td:last-child button')].every(button => button.hidden)")
    page.click("#sign-out")
    assert page.evaluate("document.getElementById('main').hidden && sessionStorage.length === 0")

    page.sign_in(admin)
    page.wait_for("!document.getElementById('main').hidden && document.querySelectorAll('.chart path.series').length >= 4")
    page.wait_for("document.querySelectorAll('.chart')[0].querySelector('path.series').getAttribute('d').split('L').length > 2")
    assert page.evaluate("document.querySelector('#jobs .name').textContent") == job, "a job's id is shown as text"
    assert page.evaluate("document.querySelectorAll('#jobs b').length") == 0

    page.wait_for("document.querySelector('#redis .tag')?.textContent === 'primary'")
    assert page.evaluate("document.querySelector('#redis .name').textContent").startswith("127.0.0.1:")

    # A job is found by its id.
    page.type("#job", job)
    page.click("#search button")
    page.wait_for_fact("running")
    assert "started by w1" in page.evaluate("document.querySelector('#job-details ol').innerText")
    page.resize(1280, 1000)
    page.screenshot("desktop")
    page.resize(390, 844, is_phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot("phone")

    # Actions ask for confirmation, and Cancel does nothing.
    page.click("#queues button")
    page.answer_dialog("#confirm-no")
    page.click("#queues button")
    page.answer_dialog("#confirm-yes")
    page.wait_for("document.querySelector('#queues .tag').textContent === 'paused'")
    page.click("#queues button")
    page.answer_dialog("#confirm-yes")
    page.wait_for("document.querySelector('#queues .tag').textContent === 'open'")

    page.click("#jobs td:last-child button")
    page.answer_dialog("#confirm-yes")
    page.wait_for_fact("interrupted")
    # Usage by tenant: read again when the page is loaded anew. The interrupted job is the only one that has ended.
    page.navigate(url)
    page.wait_for("document.querySelector('#usage .name') && [...document.querySelector('#usage tr').cells].slice(1, 3).map(cell => cell.textContent).join() === '1,1'")
    assert page.evaluate("Number(document.querySelector('#usage tr').cells[3].textContent.replaceAll(',', ''))") > 0
    page.click("#workers td:last-child button")
    page.answer_dialog("#confirm-yes")
    page.wait_for("!!document.querySelector('#workers .empty')")
    assert not page.errors, page.errors
print("all checks passed")
