from services.runtime.worker import run
from tests.runtime.counting import service

run(service())
