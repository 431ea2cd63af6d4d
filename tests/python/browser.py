"""The chat's page in a headless Chromium: tabs, and what a user does in them."""

import os
import shutil
import time
from contextlib import contextmanager
from functools import cached_property

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 30
MISSING = "the tests of the page need Chromium and its driver: apt-get install chromium chromium-driver"
OPTIONS = [
    "--headless=new",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    # It asks nobody for anything, and a tab behind another one works as one in front.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]


@contextmanager
def browser():
    """A browser of its own, with one empty tab."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.fail(MISSING, pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in OPTIONS:
        options.add_argument(option)
    if os.geteuid() == 0:
        # Chromium refuses to run in its sandbox as root, which containers of CI are.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield driver
    finally:
        driver.quit()


class Tab:
    """A tab with the page. Each use brings it to the front."""

    def __init__(self, driver, url):
        self._driver = driver
        if driver.current_url != "data:,":
            driver.switch_to.new_window("tab")
        self.handle = driver.current_window_handle
        driver.get(url)

    @property
    def driver(self):
        if self._driver.current_window_handle != self.handle:
            self._driver.switch_to.window(self.handle)
        return self._driver

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent", selector)

    def until(self, reached, what):
        deadline = time.monotonic() + PATIENCE
        while not (found := reached()):
            assert time.monotonic() < deadline, f"{what}: {self.text('#state')!r}, {self.text('#lines')!r}"
            time.sleep(0.02)
        return found

    def fill(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def join(self, name, room="hall", token=None, is_admitted=True):
        self.until(lambda: self.find("#name").is_displayed(), "the form to join is shown")
        self.fill("#name", name)
        self.fill("#room", room)
        if token is not None:
            self.fill("#token", token)
        self.find("#room").send_keys(Keys.ENTER)
        if is_admitted:
            self.until(lambda: self.find("#text").is_displayed(), "the room is shown")

    def until_connected(self, to=""):
        self.until(lambda: (self.text("#state-text") or "").startswith(f"Connected to {to}"), f"connected to {to}")

    def say(self, text):
        """Says something, and waits until the chat has taken it."""
        self.find("#text").send_keys(text, Keys.ENTER)
        self.until(lambda: self.find("#text").get_property("value") == "", "it was said")

    def lines(self):
        """All that was said, as the page shows it: numbers, speakers and texts."""
        return self.run(
            "return [...document.querySelectorAll('#lines > [data-seq]')].map((line) => [Number(line.dataset.seq),"
            " line.querySelector('.from').textContent, line.querySelector('.said').textContent])"
        )

    def said(self):
        return [text for _, _, text in self.lines()]

    def notes(self):
        return self.run("return [...document.querySelectorAll('#lines .note')].map((note) => note.textContent)")

    def until_said(self, text):
        self.until(lambda: text in self.said(), f"{text!r} was said")

    def members(self):
        return self.run("return [...document.querySelectorAll('#members li')].map((member) => member.firstChild.data)")

    def session(self):
        return self.text("#session")

    def poll(self, question, *options):
        self.find("#ask").click()
        self.fill("#question", question)
        self.fill("#options", "\n".join(options))
        self.find("#poll-form .primary").click()

    def question(self):
        """The open question, once it is there."""
        return Question(self)

    def close(self):
        self.driver.close()
        self._driver.switch_to.window(self._driver.window_handles[0])

    def take_errors(self, of_requests=True):
        """Errors that the browser has logged since the last call: of scripts and policies, and of failed requests."""
        errors = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [error for error in errors if of_requests or "net::ERR_" not in error]


class Question:
    """A question in its form."""

    def __init__(self, tab):
        self.tab = tab
        self.form = tab.until(lambda: tab.all("#questions form"), "a question is shown")[0]

    @cached_property
    def labels(self):
        """Controls by the text of their labels."""
        pairs = self.tab.run(
            "return [...arguments[0].querySelectorAll('label')].map((label) =>"
            " [label.textContent.replace(' (optional)', ''), label.control])",
            self.form,
        )
        return dict(pairs)

    def choose(self, *labels):
        for label in labels:
            self.labels[label].click()
        return self

    def type(self, label, text):
        self.labels[label].clear()
        self.labels[label].send_keys(text)
        return self

    def press(self, button="Answer"):
        self.form.find_element(By.XPATH, f".//button[text()='{button}']").click()

    def is_valid(self):
        return self.tab.run("return arguments[0].checkValidity()", self.form)
