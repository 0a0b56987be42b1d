from services.runtime.worker import run
from tests.benchmarks.tallying import service

run(service())
