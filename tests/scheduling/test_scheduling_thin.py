from datetime import UTC, date, datetime
from schemas import requests as rq, matches as m, roster as r
from schemas.body import *
from schemas.envelope import Envelope
from schemas.vocabulary import *
from services.runtime.service import Event
from services.scheduling.app import service
now=datetime(2026,11,23,12,tzinfo=UTC)
async def test_thin(open_database):
    db=await open_database("scheduling")
    d=service().decider
    async def go(*bodies):
        ev=[Event(b.TOPIC,Envelope("x","s",b.TYPE,b.subject,now,1),b,now) for b in bodies]
        facts=[]
        async with db.transaction():
            K=await d.load(db,ev); C=None
            for e in ev:
                ch,f=d.decide(K,e); K.absorb(ch); facts+=f
                if C is None: C=ch
                else: C.absorb(ch)
            await d.save(db,C)
        print([f.TYPE for f in facts]); return facts
    ag=Agency(ori="IL0160000",name="X",agency_type="municipal",state="IL",time_zone="America/Chicago",place=Place(41.8,-87.6))
    T=Terms(topics=("training",),delivery_modes=("on_site_consultation","virtual_coaching"),window=DateWindow(date(2026,12,1),date(2027,3,30)))
    await go(rq.RequestAccepted(request_id="R1",agency=ag,terms=T,submitted_at=now), rq.RequestAccepted(request_id="R2",agency=ag,terms=T,submitted_at=now))
    await go(m.MatchConfirmed(request_id="R1",match_id="R1/m1",partner_id="P",expert_ids=("E1",)),m.MatchConfirmed(request_id="R2",match_id="R2/m1",partner_id="P",expert_ids=("E1",)))
    prof=ExpertProfile(partner_id="P",skills=(TopicSkill(topic="training"),),delivery_modes=("on_site_consultation",),agency_types=("municipal",),home=Place(34.05,-118.2),time_zone="America/Los_Angeles")
    await go(r.ExpertListed(expert_id="E1",profile=prof))
    await go(r.AvailabilityChanged(expert_id="E1",unavailable=(DateWindow(date(2026,12,1),date(2026,12,11)),)))
    await go(rq.PlanApproved(request_id="R1",plan_version=2),rq.PlanCleared(request_id="R1",plan_version=2))
    await go(*[rq.SessionReported(request_id="R1",session_id=f"R1/s2.{n}",held_on=date(2026,12,20)) for n in (1,2,3)])
    await go(rq.EvaluationReturned(request_id="R1",goals_met=True,satisfaction=5))
    print(await db.fetch("select request_id,version,step,expert_ids,follow_up_on from engagement"))
    print(len(await db.fetch("select * from booking")))
    for g in service().gauges: print(g.name, await g.read(db))
    rd=service().rounds[0]
    K=await rd.load(db,datetime(2027,1,1,tzinfo=UTC)); ch,f=rd.decide(K,now); print(f); await rd.save(db,ch)
    print(await rd.load(db,datetime(2027,1,1,tzinfo=UTC)))
