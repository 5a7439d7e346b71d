// What is known of one engine, the two that are pinned, and their paired comparison.

const PINS = { rows: [], watchers: [] };

function pin(row) {
  const place = PINS.rows.indexOf(row);
  if (place >= 0) PINS.rows.splice(place, 1);
  else if (PINS.rows.length < 2) PINS.rows.push(row);
  else PINS.rows[1] = row;
  say(place >= 0 ? `${row.name} is no longer pinned.`
    : PINS.rows.length === 2 ? `${PINS.rows[0].name} and ${row.name} are compared below the chart.` : `${row.name} is pinned; choose a second one.`);
  for (const watcher of PINS.watchers) watcher();
}

const pinButton = (row) => {
  const place = PINS.rows.indexOf(row);
  return el('button', { type: 'button', class: 'pin', 'aria-pressed': place >= 0 ? 'true' : 'false', 'aria-label': `Pin ${row.name}`, onclick: () => pin(row) },
    place >= 0 ? 'AB'[place] : 'Pin');
};

const terms = (pairs) => el('dl', { class: 'terms' }, pairs.filter((own) => own && own[1] !== null && own[1] !== undefined && own[1] !== '')
  .map(([term, ...values]) => el('div', {}, el('dt', {}, term), el('dd', {}, ...values))));

function figureWithInterval(row, name) {
  const one = objective(name);
  const value = valueOf(row, name);
  if (value === null) return null;
  const around = interval(lowOf(row, name), highOf(row, name), one.unit);
  const of = name === 'accuracy' ? `, n = ${row.n}` : energetic(name) ? `, source: ${sourceOf(row)}` : '';
  return `${withUnit(value, one.unit)}${around ? ` ${around}` : ''}${of}`;
}

function verdictOf(row, front) {
  if (!front) return null;
  const place = front.place.get(row.index);
  if (place === undefined) return null;
  const tied = front.tied[row.index];
  const word = front.winners.has(row.index) ? 'on the frontier'
    : tied ? `dominated, but not distinguishable from ${tied.map((own) => ROWS[own].name).join(', ')}` : 'dominated';
  return { word, p: front.p[place], knee: front.knee === row.index };
}

function energyText(row) {
  const one = energyOf(row);
  if (!one) return 'not measured';
  if (one.reason) return `unavailable: ${one.reason}`;
  const net = one.net === undefined ? '' : `, net of idle ${withUnit(one.net, 'J/example')}`;
  return `${one.source}, meter ${one.meter}, ${count((one.windows || []).length, 'window')}${net}`;
}

// Each way in which single queries were timed; of one alone the latencies above say everything.
function timings(row) {
  const single = row.others.filter((own) => own.scenario === 'single-stream');
  if (single.length < 2) return [];
  const told = (own) => Object.entries(own.latency).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${inColumn(value, 's')}`);
  return single.map((own) => [`single queries, ${own.timing}, ms`, `${told(own).join(', ')}; ${count(own.samples, 'sample')} in ${count(own.blocks, 'block')}`]);
}

function details(row, front) {
  const verdict = verdictOf(row, front);
  return el('div', { class: 'details' },
    el('h3', {}, row.name),
    verdict && el('p', { class: 'verdict' }, `${verdict.word}${verdict.knee ? '; the knee' : ''}. P(frontier) = ${fixed(verdict.p, 2)} for ${front.objectives.map((name) => name === 'accuracy' ? row.metric : objective(name).short).join(' and ')}.`),
    row.launch_share !== null && soft(`${percent(row.launch_share)} of a single query is not spent on the device: no reduction makes that part shorter.`),
    terms([
      ...DATA.objectives.map((one) => [one.name === 'accuracy' ? row.metric : one.short, figureWithInterval(row, one.name)]),
      ...timings(row),
      ['energy source', energyText(row)],
      ['reduction', row.technique === 'full' ? 'none' : `${row.technique}: ${row.level_text}`],
      ['variant', `${row.variant}${row.scheme === row.variant ? '' : ` (${row.scheme})`}`],
      ['runs on', `${row.backend}, ${row.device}`],
      ['model', [row.model, row.regime && `regime ${row.regime}`].filter(Boolean).join(', ')],
      ['weights left', percent(row.weight_remaining, 1)],
      ['labels as its checkpoint', percent(row.parity, 1)],
      ['gates', row.failed.length ? el('ul', { class: 'failed' }, row.failed.map(([name, seen]) => el('li', {}, el('strong', {}, 'failed: '), `${name}: ${seen}`)))
        : `${row.gates - row.unchecked} of ${row.gates} passed${row.unchecked ? `, ${row.unchecked} could not be checked` : ', none failed'}`],
      row.flags.length ? ['flags', [...new Set(row.flags)].join('; ')] : null,
    ]),
    provenance(row));
}

function provenance(row) {
  const host = DATA.hosts[row.host] || {};
  const set = DATA.settings[row.settings] || {};
  const plain = (value) => (typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value));
  return el('details', { class: 'provenance' }, el('summary', {}, 'Where these numbers come from'),
    terms([
      ['result file', el('code', {}, `${row.id}.json`)],
      ['measured', `${row.started}, session ${row.session}`],
      ['rows', `${row.rows}, ${row.n}`],
      ['engine digest', el('code', {}, row.digest)],
      ['checkpoint', row.checkpoint],
      ['checkpoint digest', el('code', {}, row.checkpoint_digest)],
      ['host', `${row.host}: ${[host.cpu, `${host.cores} cores`, host.virtual ? 'virtual machine' : null, host.system].filter(Boolean).join(', ')}`],
      ['software', `effx ${host.effx}${host.effx_commit ? ` (${host.effx_commit})` : ''}, Python ${host.python}${set.versions ? `, ${Object.entries(set.versions).map((own) => own.join(' ')).join(', ')}` : ''}`],
      ...Object.entries(set).filter(([key, value]) => key !== 'versions' && value !== null).map(([key, value]) => [key, plain(value)]),
    ]));
}

function ratioText(ratio) {
  if (!ratio.interval) return { value: `${ratioNumber(ratio.value)}x`, around: 'no interval', sure: null };
  const [low, high] = ratio.interval;
  return { value: `${ratioNumber(ratio.value)}x`, around: `${ratioNumber(low)} to ${ratioNumber(high)}`, sure: low > 1 || high < 1 };
}

// Comparisons with the baseline are many at once: their p-values stand adjusted beside the plain ones.
function mcnemar(pair) {
  if (pair.p_value === null) return null;
  const beside = pair.p_adjusted === null ? '' : `, ${pValue(pair.p_adjusted)} adjusted for all comparisons with the baseline (Holm)`;
  return `McNemar's ${pValue(pair.p_value)}${beside}`;
}

function comparison(a, b) {
  const found = pairOf(a, b);
  if (!found.pair) return el('p', { class: 'note' }, `No paired comparison. ${found.why}`);
  const { pair } = found;
  const line = (what, value, around, word) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, what), el('td', {}, value), el('td', {}, around), el('td', { class: 'word so' }, word));
  const told = (sure, less, more, value) => (sure === null ? '' : sure ? (value < 1 ? less : more) : 'not distinguishable');
  const rows = [line(`${pair.metric}, points (n = ${pair.n}, ${pair.differing} predictions differ)`, percentagePoints(pair.difference),
    pair.interval ? pair.interval.map(percentagePoints).join(' to ') : 'no interval',
    [pair.non_inferiority, mcnemar(pair)].filter(Boolean).join('; '))];
  for (const ratio of pair.latency) {
    const own = ratioText(ratio);
    rows.push(line(`seconds, ${ratio.scenario} ${ratio.batch}×${ratio.sequence}, ${ratio.statistic}${ratio.paired ? '' : ' (not interleaved)'}`,
      own.value, own.around, told(own.sure, 'B faster', 'B slower', ratio.value)));
  }
  if (pair.energy) {
    const own = ratioText(pair.energy);
    rows.push(line(`joules per example (source: ${pair.energy.source})`, own.value, own.around, told(own.sure, 'B takes less', 'B takes more', pair.energy.value)));
  }
  for (const [name, ratio] of Object.entries(pair.memory)) {
    if (ratio !== null) rows.push(line(`peak memory, ${name.replace('_peak_bytes', '')}`, `${ratioNumber(ratio)}x`, '', ''));
  }
  return el('div', {},
    el('p', { class: 'sentence' }, pair.sentence),
    el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Paired comparison' }, el('table', {},
      el('caption', {}, `Differences are B minus A, ratios B over A. A: ${found.a.name}. B: ${found.b.name}.`),
      el('thead', {}, el('tr', {}, ['what', 'B to A', '95 %', 'so'].map((text, place) => el('th', { scope: 'col', class: place % 3 ? null : 'word' }, text)))),
      el('tbody', {}, rows))),
    pair.remarks.length ? el('details', {}, el('summary', {}, count(pair.remarks.length, 'remark')), el('ul', {}, pair.remarks.map((text) => el('li', {}, text)))) : null);
}

function pinnedPanel() {
  const root = el('div', { class: 'pinned-panel' });
  const update = () => {
    const [a, b] = PINS.rows;
    root.replaceChildren(...(a ? [
      el('h3', {}, b ? 'Pinned engines compared' : 'Pinned'),
      el('ul', { class: 'pins' }, PINS.rows.map((row, place) => el('li', {}, el('strong', {}, `${'AB'[place]} `), row.name, ' ',
        el('button', { type: 'button', class: 'quiet', 'aria-label': `Unpin ${row.name}`, onclick: () => pin(row) }, 'Unpin')))),
      b ? comparison(a, b) : soft('Pin a second engine, in the chart or in the table, to compare the two.'),
    ] : []));
  };
  PINS.watchers.push(update);
  update();
  return root;
}
