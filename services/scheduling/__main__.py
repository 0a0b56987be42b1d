from services.runtime.worker import run
from services.scheduling.app import service

run(service())
