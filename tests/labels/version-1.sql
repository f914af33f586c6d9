BEGIN TRANSACTION;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "about" VALUES('salt','f64518b357b4c814205de891a27be2d954cf0cfe630c26e951adb7e17ab90b3c');
CREATE TABLE event_sites (
  event_id INTEGER NOT NULL REFERENCES events (id),
  place INTEGER NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  user TEXT NOT NULL,
  site TEXT NOT NULL,
  kind TEXT NOT NULL,
  segment TEXT NOT NULL,
  partner TEXT,
  verdict TEXT NOT NULL,
  is_answer INTEGER NOT NULL,
  PRIMARY KEY (event_id, place)
) WITHOUT ROWID;
INSERT INTO "event_sites" VALUES(1,0,'demo','v1','ada','0df6b945ace58a66','join','9232379236109516801','9232379236109516803','accept',1);
INSERT INTO "event_sites" VALUES(2,0,'demo','v1','ada','84d8ae5e539bf5eb','cut','9232379236109516801',NULL,'reject',1);
INSERT INTO "event_sites" VALUES(3,0,'demo','v1','ada','84d8ae5e539bf5eb','cut','9232379236109516801',NULL,'unsure',1);
INSERT INTO "event_sites" VALUES(4,0,'demo','v1','ada','c1a76e75920cb632','join','9232379236109516801','9232379236109516805','reject',1);
INSERT INTO "event_sites" VALUES(4,1,'demo','v1','ada','49c70dc7a8aedf83','join','9232379236109516801','9232379236109516806','reject',1);
INSERT INTO "event_sites" VALUES(5,0,'demo','v1','ada','076e3b73dce09081','join','9232379236109516801','9232379236109516808','accept',1);
INSERT INTO "event_sites" VALUES(9,0,'demo','v1','bob','0df6b945ace58a66','join','9232379236109516801','9232379236109516803','reject',1);
INSERT INTO "event_sites" VALUES(10,0,'demo','v1','ada','be00b942784c3896','join','9232379236109516801','9232379236109516809','skip',0);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event TEXT NOT NULL CHECK (event IN ('decision', 'undo', 'redo')),
  target INTEGER REFERENCES events (id),
  recorded_at TEXT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE CHECK (idempotency_key <> ''),
  user TEXT NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  suggestion TEXT,
  kind TEXT,
  segment TEXT,
  partner TEXT,
  verdict TEXT,
  score REAL,
  confidence REAL,
  model_sha256 TEXT,
  views_sha256 TEXT,
  decided_at TEXT,
  body TEXT,
  CHECK ((event = 'decision') = (target IS NULL)),
  CHECK ((event = 'decision') = (body IS NOT NULL AND suggestion IS NOT NULL
                                 AND kind IS NOT NULL AND segment IS NOT NULL
                                 AND verdict IS NOT NULL))
);
INSERT INTO "events" VALUES(1,'decision',NULL,'2026-11-25T01:32:49.806Z','1-accept','ada','demo','v1','0df6b945ace58a66','join','9232379236109516801','9232379236109516803','accept',0.8,0.6,'abababababababababababababababababababababababababababababababab','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','2026-01-02T03:04:06.000Z','{"suggestion":{"id":"0df6b945ace58a66","kind":"join","segment":"9232379236109516801","partner":"9232379236109516803","point_nm":[101.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"accept","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"ada","key":"f","idempotency_key":"1-accept","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":false,"reason":"","views_sha256":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
INSERT INTO "events" VALUES(2,'decision',NULL,'2026-11-25T01:32:49.820Z','2-reject','ada','demo','v1','84d8ae5e539bf5eb','cut','9232379236109516801',NULL,'reject',0.8,0.6,'abababababababababababababababababababababababababababababababab',NULL,'2026-01-02T03:04:06.000Z','{"suggestion":{"id":"84d8ae5e539bf5eb","kind":"cut","segment":"9232379236109516801","partner":null,"point_nm":[102.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"reject","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"ada","key":"f","idempotency_key":"2-reject","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":false,"reason":"","views_sha256":null,"base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
INSERT INTO "events" VALUES(3,'decision',NULL,'2026-11-25T01:32:49.831Z','changed','ada','demo','v1','84d8ae5e539bf5eb','cut','9232379236109516801',NULL,'unsure',0.8,0.6,'abababababababababababababababababababababababababababababababab',NULL,'2026-01-02T03:04:06.000Z','{"suggestion":{"id":"84d8ae5e539bf5eb","kind":"cut","segment":"9232379236109516801","partner":null,"point_nm":[102.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"unsure","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"ada","key":"f","idempotency_key":"changed","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":false,"reason":"","views_sha256":null,"base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
INSERT INTO "events" VALUES(4,'decision',NULL,'2026-11-25T01:32:49.836Z','3-none','ada','demo','v1','c1a76e75920cb632','join','9232379236109516801','9232379236109516805','none',0.8,0.6,'abababababababababababababababababababababababababababababababab',NULL,'2026-01-02T03:04:06.000Z','{"suggestion":{"id":"c1a76e75920cb632","kind":"join","segment":"9232379236109516801","partner":"9232379236109516805","point_nm":[103.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"none","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"ada","key":"f","idempotency_key":"3-none","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":true,"reason":"","views_sha256":null,"base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[{"id":"c1a76e75920cb632","kind":"join","segment":"9232379236109516801","partner":"9232379236109516805","point_nm":[103.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7]},{"id":"49c70dc7a8aedf83","kind":"join","segment":"9232379236109516801","partner":"9232379236109516806","point_nm":[104.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7]},{"id":"59758cd0e7ff8ed9","kind":"cut","segment":"9232379236109516801","partner":null,"point_nm":[105.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7]}],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
INSERT INTO "events" VALUES(5,'decision',NULL,'2026-11-25T01:32:49.844Z','6-accept','ada','demo','v1','076e3b73dce09081','join','9232379236109516801','9232379236109516808','accept',0.8,0.6,'abababababababababababababababababababababababababababababababab',NULL,'2026-01-02T03:04:06.000Z','{"suggestion":{"id":"076e3b73dce09081","kind":"join","segment":"9232379236109516801","partner":"9232379236109516808","point_nm":[106.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"accept","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"ada","key":"f","idempotency_key":"6-accept","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":false,"reason":"\"quoted\"\n=1+1 µ","views_sha256":null,"base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
INSERT INTO "events" VALUES(6,'undo',5,'2026-11-25T01:32:49.860Z','undo-1','ada','demo','v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "events" VALUES(7,'redo',5,'2026-11-25T01:32:49.861Z','redo-1','ada','demo','v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "events" VALUES(8,'undo',5,'2026-11-25T01:32:49.862Z','undo-2','ada','demo','v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "events" VALUES(9,'decision',NULL,'2026-11-25T01:32:49.868Z','bobs','bob','demo','v1','0df6b945ace58a66','join','9232379236109516801','9232379236109516803','reject',0.8,0.6,'abababababababababababababababababababababababababababababababab',NULL,'2026-01-02T03:04:06.000Z','{"suggestion":{"id":"0df6b945ace58a66","kind":"join","segment":"9232379236109516801","partner":"9232379236109516803","point_nm":[101.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"reject","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"bob","key":"f","idempotency_key":"bobs","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":false,"reason":"","views_sha256":null,"base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
INSERT INTO "events" VALUES(10,'decision',NULL,'2026-11-25T01:32:49.881Z','7-skip','ada','demo','v1','be00b942784c3896','join','9232379236109516801','9232379236109516809','skip',0.8,0.6,'abababababababababababababababababababababababababababababababab',NULL,'2026-01-02T03:04:06.000Z','{"suggestion":{"id":"be00b942784c3896","kind":"join","segment":"9232379236109516801","partner":"9232379236109516809","point_nm":[107.5,200.0,300.0],"score":0.8,"confidence":0.6,"interval":[0.5,0.7],"ood":{"percentile":12.5,"flag":false},"reason":"contact of 0.12 µm²","evidence":{"views":[{"name":"front","score":0.7},{"name":"em_xy","score":0.9}]}},"verdict":"skip","dataset":"demo","version":"v1","model_name":"cb2a-tiny","model_sha256":"abababababababababababababababababababababababababababababababab","calibrator":"cal-1","rank":0,"user":"ada","key":"f","idempotency_key":"7-skip","shown_at":"2026-01-02T03:04:05.000Z","decided_at":"2026-01-02T03:04:06.000Z","idle_ms":250,"licence":"CC-BY-4.0","species":"fly","score_hidden":false,"joint":false,"reason":"","views_sha256":null,"base_rate":{"value":0.2,"source":"default","n":0},"alternatives":[],"supervoxels":["9232379236109517301","9232379236109517302"],"propensity":{"how":"cursor"}}');
CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "migrations" VALUES(1,'events','2026-11-25T01:32:49.782Z');
CREATE INDEX events_by_user ON events (dataset, user, id, event, target, version);
CREATE INDEX events_by_target ON events (target, id, event) WHERE target IS NOT NULL;
CREATE INDEX events_by_segment ON events (dataset, segment);
CREATE INDEX events_by_partner ON events (dataset, partner);
CREATE INDEX event_sites_by_site ON event_sites (dataset, version, site, user, is_answer, event_id);
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events only grows'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events only grows'); END;
CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN (NEW.id <> -1 AND NEW.id <= (SELECT max(id) FROM events)) OR EXISTS (SELECT 1 FROM events WHERE idempotency_key = NEW.idempotency_key) BEGIN SELECT RAISE(ABORT, 'events only grows'); END;
CREATE TRIGGER event_sites_no_update BEFORE UPDATE ON event_sites BEGIN SELECT RAISE(ABORT, 'event_sites only grows'); END;
CREATE TRIGGER event_sites_no_delete BEFORE DELETE ON event_sites BEGIN SELECT RAISE(ABORT, 'event_sites only grows'); END;
CREATE TRIGGER event_sites_no_replace BEFORE INSERT ON event_sites WHEN EXISTS (SELECT 1 FROM event_sites WHERE event_id = NEW.event_id AND place = NEW.place) BEGIN SELECT RAISE(ABORT, 'event_sites only grows'); END;
CREATE VIEW decisions_in_force AS
SELECT e.* FROM events e
WHERE e.event = 'decision' AND 'undo' IS NOT (
  SELECT t.event FROM events t WHERE t.target = e.id ORDER BY t.id DESC LIMIT 1);
CREATE VIEW site_states AS
SELECT s.*, CASE
  WHEN NOT EXISTS (SELECT 1 FROM decisions_in_force d WHERE d.id = s.event_id) THEN 'undone'
  WHEN EXISTS (
    SELECT 1 FROM event_sites r JOIN decisions_in_force d ON d.id = r.event_id
    WHERE r.dataset = s.dataset AND r.version = s.version AND r.site = s.site
      AND r.user = s.user AND (r.is_answer, r.event_id) > (s.is_answer, s.event_id)
  ) THEN 'superseded'
  ELSE 'in force' END AS state
FROM event_sites s;
CREATE VIEW current_labels AS
SELECT event_id, dataset, version, user, site, kind, segment, partner, verdict
FROM site_states WHERE state = 'in force';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',10);
PRAGMA application_id = 1128411713;
PRAGMA user_version = 1;
COMMIT;
