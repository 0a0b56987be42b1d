from services.matching.app import service
from services.runtime.worker import run

run(service())
