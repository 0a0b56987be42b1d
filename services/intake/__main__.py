from services.intake.app import service
from services.runtime.worker import run

run(service())
